// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Slicing;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.rewrite.OutputBiases;
import io.onnxprune.rewrite.PrunedState;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/** Biases of the linear layers of a pruned model. Each bias is kept in its pruned and in its dense shape. */
final class BiasStore {
    private final PrunedState state;
    private final OutputBiases outputBiases;
    private final Map<LinearLayer, List<Value>> biasesByLayer = new HashMap<>();
    private final Map<Value, Tensor> updates = new HashMap<>();

    BiasStore(PrunedState state) {
        this.state = state;
        this.outputBiases = new OutputBiases(state.structure());
    }

    private List<Value> biasesOf(PrunedLinear layer) {
        return biasesByLayer.computeIfAbsent(layer.dense(), outputBiases::of);
    }

    /**
     * The bias of a linear layer, one value for each output channel in the pruned model; null if the layer has no bias
     * of its biasesOf.
     */
    double[] of(PrunedLinear layer) {
        List<Value> biases = biasesOf(layer);
        if (biases.isEmpty()) {
            return null;
        }
        float[] values = present(biases.get(0)).toFloats();
        return IntStream.of(layer.columns()).mapToDouble(i -> values[i]).toArray();
    }

    private Tensor present(Value bias) {
        return updates.getOrDefault(bias, state.updates().getOrDefault(bias, bias.constant()));
    }

    /**
     * Adds {@code shift} to the bias of a linear layer.
     *
     * @param shift one value for each output channel of the layer in the pruned model
     * @return the new contents of initializers of the pruned model, by name
     * @throws UserException if the layer has no bias, or a sum is outside the range of the element type
     */
    Map<String, Tensor> add(PrunedLinear layer, double[] shift) {
        List<Value> biases = biasesOf(layer);
        if (biases.isEmpty()) {
            throw new UserException("node " + layer.dense().node() + " has no bias that can be changed");
        }
        Map<String, Tensor> changed = new LinkedHashMap<>();
        for (Value bias : biases) {
            Tensor present = present(bias);
            float[] values = present.toFloats();
            for (int i = 0; i < shift.length; i++) {
                values[layer.columns()[i]] += (float) shift[i];
            }
            Tensor dense = Tensor.ofFloats(present.dtype(), present.shape(), values);
            for (float value : dense.toFloats()) {
                if (!Float.isFinite(value)) {
                    throw new UserException(
                            "the new bias of node " + layer.dense().node() + " is outside the range of " + dense.dtype()
                                    + "; calibrate on other data");
                }
            }
            updates.put(bias, dense);
            changed.put(nameInPrunedModel(bias), toPruned(dense, layer));
        }
        return changed;
    }

    /**
     * Lets the bias of a linear layer take the mean of what its weights lost: the best bias for any weights.
     *
     * @param before the weights that it fits now, {@code [n, out]}
     * @param after the new weights, {@code [n, out]}
     * @param total sum of the inputs, {@code [n]}
     * @param count number of positions in that sum
     * @return the new contents of initializers of the pruned model, by name
     */
    Map<String, Tensor> follow(PrunedLinear layer, Matrix before, Matrix after, double[] total, double count) {
        double[] shift = new double[before.columns()];
        double[] old = new double[shift.length];
        double[] now = new double[shift.length];
        for (int i = 0; i < before.rows(); i++) {
            before.getRow(i, old);
            after.getRow(i, now);
            for (int j = 0; j < shift.length; j++) {
                shift[j] += total[i] / count * (old[j] - now[j]);
            }
        }
        return add(layer, shift);
    }

    private String nameInPrunedModel(Value bias) {
        return state.slices().entrySet().stream()
                .filter(entry -> entry.getValue().source().equals(bias.name()))
                .map(Map.Entry::getKey)
                .findFirst()
                .orElse(bias.name());
    }

    private Tensor toPruned(Tensor dense, PrunedLinear layer) {
        int[][] kept = new int[dense.rank()][];
        if (layer.columns().length < layer.dense().outputs()) {
            kept[dense.rank() - 1] = layer.columns();
        }
        return Slicing.slice(dense, kept);
    }

    /** The changed biases of the dense model, in their dense shapes. */
    Map<Value, Tensor> updates() {
        return updates;
    }
}
