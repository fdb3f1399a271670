// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

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

/** Biases of products of a smaller model, as they are in it and in the original. */
final class BiasStore {
    private final PrunedState state;
    private final OutputBiases found;
    private final Map<LinearLayer, List<Value>> known = new HashMap<>();
    private final Map<Value, Tensor> updates = new HashMap<>();

    BiasStore(PrunedState state) {
        this.state = state;
        this.found = new OutputBiases(state.structure());
    }

    private List<Value> own(PrunedLinear layer) {
        return known.computeIfAbsent(layer.dense(), found::of);
    }

    /** The bias of a product, for each channel of its result in the smaller model; null if it has none of its own. */
    double[] of(PrunedLinear layer) {
        List<Value> biases = own(layer);
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
     * Adds to the bias of a product.
     *
     * @param shift for each channel of the result in the smaller model
     * @return the new contents of initializers of the smaller model
     * @throws UserException if the product has no bias, or it cannot hold the sum
     */
    Map<String, Tensor> add(PrunedLinear layer, double[] shift) {
        List<Value> biases = own(layer);
        if (biases.isEmpty()) {
            throw new UserException("node " + layer.dense().node() + " has no bias that could be changed");
        }
        Map<String, Tensor> edited = new LinkedHashMap<>();
        for (Value bias : biases) {
            Tensor present = present(bias);
            float[] values = present.toFloats();
            for (int i = 0; i < shift.length; i++) {
                values[layer.columns()[i]] += (float) shift[i];
            }
            Tensor wide = Tensor.ofFloats(present.dtype(), present.shape(), values);
            for (float value : wide.toFloats()) {
                if (!Float.isFinite(value)) {
                    throw new UserException(
                            "the new bias of node " + layer.dense().node() + " is no number that " + wide.dtype()
                                    + " can hold; calibrate on other data");
                }
            }
            updates.put(bias, wide);
            edited.put(nameInState(bias), toPruned(wide, layer));
        }
        return edited;
    }

    private String nameInState(Value bias) {
        return state.slices().entrySet().stream()
                .filter(entry -> entry.getValue().source().equals(bias.name()))
                .map(Map.Entry::getKey)
                .findFirst()
                .orElse(bias.name());
    }

    private Tensor toPruned(Tensor wide, PrunedLinear layer) {
        int[][] kept = new int[wide.rank()][];
        if (layer.columns().length < layer.dense().outputs()) {
            kept[wide.rank() - 1] = layer.columns();
        }
        return Slicing.slice(wide, kept);
    }

    /** New contents of biases of the original. */
    Map<Value, Tensor> updates() {
        return updates;
    }
}
