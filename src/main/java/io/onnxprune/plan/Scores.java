// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Structure;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Importance of everything that can be pruned.
 *
 * @param units one score for each unit of each prunable dimension, by dimension name
 * @param layers one score for each layer
 * @param blocks one score for each residual block, in the order of {@link
 *     io.onnxprune.dims.ResidualStream#blocks()}
 */
@SuppressWarnings("ArrayRecordComponent") // bulk data, never compared
public record Scores(Map<String, double[]> units, double[] layers, double[] blocks) {
    public Scores {
        units = new LinkedHashMap<>(units);
    }

    /** Scores of units only. All layers and blocks have score 0. */
    public static Scores ofUnits(Map<String, double[]> units, Structure structure) {
        return new Scores(
                units,
                new double[structure.stream().layers()],
                new double[structure.stream().blocks().size()]);
    }

    /** These scores with those of other dimensions, multiplied by {@code factor}. */
    public Scores with(Scores others, double factor) {
        Map<String, double[]> all = new LinkedHashMap<>(units);
        others.units.forEach((name, scores) ->
                all.put(name, Arrays.stream(scores).map(score -> factor * score).toArray()));
        return new Scores(all, layers, blocks);
    }

    /**
     * These scores with the lowest score for everything that {@code plan} already prunes, so that it is pruned first.
     */
    public Scores after(Plan plan, Structure structure) {
        Map<String, double[]> changed = new LinkedHashMap<>();
        units.forEach((name, scores) ->
                changed.put(name, withPruned(scores, plan.keep().get(name))));
        double[] changedBlocks = blocks.clone();
        List<Block> all = structure.stream().blocks();
        for (int index = 0; index < changedBlocks.length; index++) {
            if (plan.removesBlock(index, all.get(index).layer())) {
                changedBlocks[index] = Double.NEGATIVE_INFINITY;
            }
        }
        return new Scores(changed, withPruned(layers, plan.layers()), changedBlocks);
    }

    private static double[] withPruned(double[] scores, int[] kept) {
        if (kept == null) {
            return scores;
        }
        double[] changed = new double[scores.length];
        Arrays.fill(changed, Double.NEGATIVE_INFINITY);
        for (int index : kept) {
            changed[index] = scores[index];
        }
        return changed;
    }
}
