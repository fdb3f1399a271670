// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Structure;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Importance of everything that can be removed.
 *
 * @param units one score for each unit of each prunable dimension, by dimension name
 * @param layers one score for each layer
 * @param blocks one score for each residual block, in the order of {@link io.onnxprune.dims.ResidualStream#blocks()}
 */
@SuppressWarnings("ArrayRecordComponent") // bulk data, never compared
public record Scores(Map<String, double[]> units, double[] layers, double[] blocks) {
    public Scores {
        units = new LinkedHashMap<>(units);
    }

    /** Scores of units alone: all layers and blocks have score 0. */
    public static Scores ofUnits(Map<String, double[]> units, Structure structure) {
        return new Scores(
                units,
                new double[structure.stream().layers()],
                new double[structure.stream().blocks().size()]);
    }

    /** These with what {@code plan} removes already worth least of all, so that it goes first. */
    public Scores after(Plan plan, Structure structure) {
        Map<String, double[]> left = new LinkedHashMap<>();
        units.forEach(
                (name, scores) -> left.put(name, withGone(scores, plan.keep().get(name))));
        double[] leftBlocks = blocks.clone();
        List<Block> all = structure.stream().blocks();
        for (int index = 0; index < leftBlocks.length; index++) {
            if (plan.removesBlock(index, all.get(index).layer())) {
                leftBlocks[index] = Double.NEGATIVE_INFINITY;
            }
        }
        return new Scores(left, withGone(layers, plan.layers()), leftBlocks);
    }

    private static double[] withGone(double[] scores, int[] kept) {
        if (kept == null) {
            return scores;
        }
        double[] left = new double[scores.length];
        Arrays.fill(left, Double.NEGATIVE_INFINITY);
        for (int index : kept) {
            left[index] = scores[index];
        }
        return left;
    }
}
