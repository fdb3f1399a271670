// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.ir.Model;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.OnnxRuntime;
import java.nio.FloatBuffer;
import java.util.Optional;

/** Reduces gradients in the runtime although they are in this process's memory. */
public final class RuntimeReduction implements AutoCloseable {
    private final GradientReduction reduction;

    /** Creates a reduction with the operator set of {@code model}. */
    public RuntimeReduction(OnnxRuntime runtime, Model model) {
        reduction = new GradientReduction(runtime, model);
    }

    /** Sums that are given as elements; the squares may be null. */
    public GradientSums sums(long[] shape, float[] sum, float[] squares) {
        return of(reduction.sums(
                HostTensor.ofFloat32(shape, sum), squares == null ? null : HostTensor.ofFloat32(shape, squares)));
    }

    /** The same sums, to be reduced in the runtime. */
    public static GradientSums of(GradientSums sums) {
        return new GradientSums() {
            @Override
            public FloatBuffer sum() {
                return sums.sum();
            }

            @Override
            public FloatBuffer squares() {
                return sums.squares();
            }

            @Override
            public Optional<double[][]> along(AxisReduction wanted) {
                return Optional.of(((GradientReduction.Sums) sums).reduce(wanted));
            }
        };
    }

    @Override
    public void close() {
        reduction.close();
    }
}
