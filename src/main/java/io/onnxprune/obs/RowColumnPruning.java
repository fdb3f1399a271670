// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import java.util.ArrayList;
import java.util.BitSet;
import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;

/**
 * Structured pruning of single weight matrices: removes the cheapest inputs (rows) and outputs (columns) over all
 * layers, up to a share of all elements. An element whose input and output are both removed counts once (LLM Surgeon,
 * arXiv 2312.17244).
 */
public final class RowColumnPruning {
    private final List<Layer> layers = new ArrayList<>();
    private final List<Candidate> candidates = new ArrayList<>();

    /** The shape of a layer and its removed inputs and outputs. */
    private record Layer(int inputs, int outputs, BitSet removedInputs, BitSet removedOutputs) {
        long removedElements() {
            long i = removedInputs.cardinality();
            long j = removedOutputs.cardinality();
            return i * outputs + j * inputs - i * j;
        }
    }

    /** An input or output of a layer that may be removed. */
    private record Candidate(double cost, Layer layer, boolean isInput, int index) {
        BitSet removedIndices() {
            return isInput ? layer.removedInputs : layer.removedOutputs;
        }
    }

    /**
     * Adds a layer.
     *
     * @param inputs cost of removing each input
     * @param outputs cost of removing each output
     */
    public void add(double[] inputs, double[] outputs) {
        Layer layer = new Layer(inputs.length, outputs.length, new BitSet(), new BitSet());
        layers.add(layer);
        for (int i = 0; i < inputs.length; i++) {
            candidates.add(new Candidate(inputs[i], layer, true, i));
        }
        for (int j = 0; j < outputs.length; j++) {
            candidates.add(new Candidate(outputs[j], layer, false, j));
        }
    }

    /**
     * Removes inputs and outputs in ascending order of cost until the next one would exceed {@code share} of all
     * elements.
     *
     * @param share 0 to 1
     */
    public void choose(double share) {
        long limit = (long) Math.floor(1e-9
                + share
                        * layers.stream()
                                .mapToLong(layer -> (long) layer.inputs * layer.outputs)
                                .sum());
        candidates.sort(Comparator.comparingDouble(Candidate::cost));
        long removed = 0;
        for (Candidate candidate : candidates) {
            long before = candidate.layer.removedElements();
            candidate.removedIndices().set(candidate.index);
            removed += candidate.layer.removedElements() - before;
            if (removed > limit) {
                candidate.removedIndices().clear(candidate.index);
                return;
            }
        }
    }

    /**
     * The kept inputs of a layer, ascending.
     *
     * @param layer index of the layer in order of {@link #add}
     */
    public int[] keptInputs(int layer) {
        Layer found = layers.get(layer);
        return complement(found.inputs, found.removedInputs);
    }

    /**
     * The kept outputs of a layer, ascending.
     *
     * @param layer index of the layer in order of {@link #add}
     */
    public int[] keptOutputs(int layer) {
        Layer found = layers.get(layer);
        return complement(found.outputs, found.removedOutputs);
    }

    private static int[] complement(int count, BitSet removed) {
        return IntStream.range(0, count).filter(i -> !removed.get(i)).toArray();
    }
}
