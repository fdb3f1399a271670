// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import java.util.HashMap;
import java.util.Map;
import java.util.SplittableRandom;

/**
 * Uniform random scores, the baseline that every method should beat. They depend only on the seed and the name of the
 * dimension.
 */
public final class RandomImportance implements Importance {
    private final long seed;

    public RandomImportance(long seed) {
        this.seed = seed;
    }

    @Override
    public Scores score(Structure structure, Log log) {
        Map<String, double[]> units = new HashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable()) {
                units.put(dimension.name(), uniform(dimension.name(), dimension.size()));
            }
        }
        double[] blocks = new double[structure.stream().blocks().size()];
        double[] single = uniform("blocks", blocks.length);
        for (int[] copies : PrunableBlocks.blocks(structure)) {
            for (int index : copies) {
                blocks[index] = single[copies[0]];
            }
        }
        return new Scores(units, uniform("layers", structure.stream().layers()), blocks);
    }

    private double[] uniform(String name, int count) {
        // The multiplier, from SplittableRandom's own mixer, gives neighbouring seeds and similar names unrelated
        // streams.
        return new SplittableRandom(seed * 0x9e3779b97f4a7c15L + name.hashCode())
                .doubles(count)
                .toArray();
    }
}
