// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import io.onnxprune.calibrate.AxisReduction;
import io.onnxprune.calibrate.GradientSink;
import io.onnxprune.calibrate.GradientSums;
import io.onnxprune.calibrate.RuntimeReduction;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Taylor;
import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.Set;

/** Gradients that are reduced in the runtime, as on a device. */
final class RuntimeGradients implements Taylor.Gradients {
    private final Taylor.Gradients gradients;
    private final List<String> reduced = new ArrayList<>();
    private final List<String> read = new ArrayList<>();

    RuntimeGradients(Taylor.Gradients gradients) {
        this.gradients = gradients;
    }

    /** The initializers that were reduced in the runtime. */
    List<String> reduced() {
        return reduced;
    }

    /** The initializers of which the elements were read. */
    List<String> read() {
        return read;
    }

    @Override
    public int rows() {
        return gradients.rows();
    }

    @Override
    public Tensor weights(String initializer, Tensor original) {
        return gradients.weights(initializer, original);
    }

    @Override
    public void run(Set<String> initializers, boolean squares, GradientSink sink) {
        gradients.run(initializers, squares, (name, sums) -> sink.accept(name, new Watched(name, sums)));
    }

    private final class Watched implements GradientSums {
        private final String name;
        private final GradientSums sums;

        Watched(String name, GradientSums sums) {
            this.name = name;
            this.sums = RuntimeReduction.of(sums);
        }

        @Override
        public FloatBuffer sum() {
            read.add(name);
            return sums.sum();
        }

        @Override
        public FloatBuffer squares() {
            return sums.squares();
        }

        @Override
        public Optional<double[][]> along(AxisReduction reduction) {
            reduced.add(name);
            return sums.along(reduction);
        }
    }
}
