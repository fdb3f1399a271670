// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;

/** Which initializers of a lowered model are trained where there are no adapters. */
final class Parameters {
    private Parameters() {}

    /**
     * The matrices of products and all vectors, or only vectors that are multiplied with, or only those that are added.
     *
     * @param linears the products that count
     * @throws UserException if the model has none
     */
    static Set<String> of(Model lowered, List<LoweredLinear> linears, TrainingOptions.Mode mode) {
        Set<String> names = new LinkedHashSet<>();
        boolean full = mode == TrainingOptions.Mode.FULL;
        if (full) {
            linears.forEach(linear -> names.add(linear.weight()));
        }
        for (Node node : lowered.graph().nodes()) {
            boolean normalizes = node.is("LayerNormalization") || node.is("RMSNormalization");
            for (int i = 0; i < node.inputs().size(); i++) {
                boolean scale = normalizes ? i == 1 : node.is("Mul");
                boolean added = normalizes ? i == 2 : node.is("Add") || node.is("Gemm") && i == 2;
                boolean wanted = full
                        ? scale || added
                        : mode == TrainingOptions.Mode.NORMS ? scale : mode == TrainingOptions.Mode.BIAS && added;
                Tensor tensor = lowered.graph().initializers().get(node.input(i));
                if (wanted
                        && tensor != null
                        && tensor.dtype().isFloat()
                        && tensor.rank() == 1
                        && tensor.elements() > 1) {
                    names.add(node.input(i));
                }
            }
        }
        if (names.isEmpty()) {
            throw new UserException("this model has nothing that --train "
                    + mode.name().toLowerCase(Locale.ROOT) + " could train; take lora");
        }
        return names;
    }
}
