// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtProvider;
import ai.onnxruntime.OrtSession.SessionOptions;
import io.onnxprune.diag.UserException;
import java.util.LinkedHashMap;
import java.util.Map;

/** ONNX Runtime's CUDA provider. */
final class CudaProvider {
    private CudaProvider() {}

    /**
     * Checks that CUDA is usable before any other work. CUDA looks for libraries and devices when it is first
     * requested.
     *
     * @throws UserException when a library, the driver or the device is missing
     */
    static void check(RuntimeOptions options) {
        if (!OrtEnvironment.getAvailableProviders().contains(OrtProvider.CUDA)) {
            throw new UserException(
                    "the ONNX Runtime library that was loaded is built without CUDA; give one with CUDA by"
                            + " --ort-library, or use --provider cpu");
        }
        try (SessionOptions target = new SessionOptions()) {
            append(target, options, false);
        } catch (OrtException e) {
            throw Failures.cuda(options.device(), NativeLibrary.folder(), e);
        }
    }

    /**
     * Appends the provider to the options of a session.
     *
     * @param optimize whether the session may trade digits for time
     * @throws UserException when CUDA cannot be used
     */
    static void append(SessionOptions target, RuntimeOptions options, boolean optimize) throws OrtException {
        Map<String, String> cuda = new LinkedHashMap<>();
        cuda.put("device_id", Integer.toString(options.device()));
        // TF32 keeps 10 bits of mantissa, too few to compare a pruned model with its original.
        boolean tf32 = options.precision() == RuntimeOptions.Precision.TF32 && optimize;
        cuda.put("use_tf32", tf32 ? "1" : "0");
        // Growing by powers of two could take twice the needed memory.
        cuda.put("arena_extend_strategy", "kSameAsRequested");
        try {
            NativeApi.of(NativeLibrary.core()).appendCuda(NativeHandle.of(target), cuda);
        } catch (NativeApi.Failure e) {
            throw Failures.cuda(options.device(), NativeLibrary.folder(), e);
        }
    }
}
