// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import ai.onnxruntime.OrtSession.SessionOptions;
import io.onnxprune.TestModels;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * The CUDA provider is appended through the C API, because Microsoft's JNI library for the CPU cannot do it: "This binary
 * was not compiled with CUDA support". Nothing here needs a GPU.
 */
@Tag("ort")
class CudaProviderTest {
    @TempDir
    private Path folder;

    /** The library of the CPU build answers itself; the JNI library is not asked. */
    @Test
    void theLibraryItselfIsAsked() throws Exception {
        TestModels.runtime();
        NativeApi api = NativeApi.of(NativeLibrary.core());
        try (SessionOptions options = new SessionOptions()) {
            assertThatThrownBy(() -> api.appendCuda(NativeHandle.of(options), Map.of("device_id", "0")))
                    .isInstanceOf(NativeApi.Failure.class)
                    .hasMessageContaining("CUDA")
                    .hasMessageNotContaining("This binary was not compiled");
        }
    }

    /** With the CUDA build on the class path (profile cuda), only a driver, a device or its libraries may be missing. */
    @Test
    void theCudaBuildStartsUpToTheDevice() throws IOException, InterruptedException {
        String provider = "org/bytedeco/onnxruntime/linux-x86_64-gpu/libonnxruntime_providers_cuda.so";
        assumeTrue(
                getClass().getClassLoader().getResource(provider) != null, "this build has no CUDA; mvn -Pcuda has it");
        Process process = new ProcessBuilder(
                        ProcessHandle.current().info().command().orElseThrow(),
                        "-cp",
                        System.getProperty("java.class.path"),
                        "io.onnxprune.cli.Main",
                        TestModels.file("llama-gqa-d").toString(),
                        "--method=magnitude",
                        "--provider=cuda",
                        "-o",
                        folder.resolve("small.onnx").toString())
                .redirectErrorStream(true)
                .start();
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);

        assertThat(process.waitFor()).as(output).isIn(0, 1);
        assertThat(output).doesNotContain("not compiled", "built without CUDA", "Exception");
        if (process.exitValue() == 1) {
            assertThat(output).containsAnyOf("there is no CUDA device", "the CUDA libraries are not found");
        }
    }
}
