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

/** Selects the initializers of a lowered model that are trained without adapters. */
final class Parameters {
    private Parameters() {}

    /**
     * The names of the trained initializers. Mode FULL: the weights of linear layers and all scales and biases. NORMS:
     * vectors that are multiplied. BIAS: vectors that are added.
     *
     * @param linears the linear layers to train
     * @throws UserException when the model has none of these
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
                boolean selected = full
                        ? scale || added
                        : mode == TrainingOptions.Mode.NORMS ? scale : mode == TrainingOptions.Mode.BIAS && added;
                Tensor tensor = lowered.graph().initializers().get(node.input(i));
                if (selected
                        && tensor != null
                        && tensor.dtype().isFloat()
                        && tensor.rank() == 1
                        && tensor.elements() > 1) {
                    names.add(node.input(i));
                }
            }
        }
        if (names.isEmpty()) {
            throw new UserException("this model has no parameters for --train "
                    + mode.name().toLowerCase(Locale.ROOT) + "; use --train lora");
        }
        return names;
    }
}
