// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import java.util.ArrayList;
import java.util.BitSet;
import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;

/**
 * Inputs and outputs of several layers, of which the cheapest go, wherever they are, up to a share of all elements. An element
 * whose input and output both go is counted once (LLM Surgeon, arXiv 2312.17244).
 */
public final class RowColumnPruning {
    private final List<Layer> layers = new ArrayList<>();
    private final List<Strip> strips = new ArrayList<>();

    private record Layer(int inputs, int outputs, BitSet goneInputs, BitSet goneOutputs) {
        long removed() {
            long i = goneInputs.cardinality();
            long j = goneOutputs.cardinality();
            return i * outputs + j * inputs - i * j;
        }
    }

    private record Strip(double cost, Layer layer, boolean isInput, int index) {
        BitSet gone() {
            return isInput ? layer.goneInputs : layer.goneOutputs;
        }
    }

    /** Adds a layer with the costs of its inputs and of its outputs. */
    public void add(double[] inputs, double[] outputs) {
        Layer layer = new Layer(inputs.length, outputs.length, new BitSet(), new BitSet());
        layers.add(layer);
        for (int i = 0; i < inputs.length; i++) {
            strips.add(new Strip(inputs[i], layer, true, i));
        }
        for (int j = 0; j < outputs.length; j++) {
            strips.add(new Strip(outputs[j], layer, false, j));
        }
    }

    /** Chooses in the order of costs, until the next would exceed {@code share} of all elements. */
    public void choose(double share) {
        long limit = (long) Math.floor(1e-9
                + share
                        * layers.stream()
                                .mapToLong(layer -> (long) layer.inputs * layer.outputs)
                                .sum());
        strips.sort(Comparator.comparingDouble(Strip::cost));
        long removed = 0;
        for (Strip strip : strips) {
            long before = strip.layer.removed();
            strip.gone().set(strip.index);
            removed += strip.layer.removed() - before;
            if (removed > limit) {
                strip.gone().clear(strip.index);
                return;
            }
        }
    }

    /** The inputs of a layer that stay, ascending; layers are counted as they were added. */
    public int[] keptInputs(int layer) {
        Layer found = layers.get(layer);
        return others(found.inputs, found.goneInputs);
    }

    /** The outputs of a layer that stay, ascending. */
    public int[] keptOutputs(int layer) {
        Layer found = layers.get(layer);
        return others(found.outputs, found.goneOutputs);
    }

    private static int[] others(int count, BitSet gone) {
        return IntStream.range(0, count).filter(i -> !gone.get(i)).toArray();
    }
}
