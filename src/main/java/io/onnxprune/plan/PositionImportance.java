// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import java.util.HashMap;
import java.util.Map;
import java.util.stream.IntStream;

/**
 * Importance by position: the first layers, blocks and units are most important. The layer-wise mode of LLM-Pruner
 * (arXiv 2305.11627) keeps the first layers in this way. It needs no measurement.
 */
public final class PositionImportance implements Importance {
    @Override
    public Scores score(Structure structure, Log log) {
        Map<String, double[]> units = new HashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable()) {
                units.put(dimension.name(), descending(dimension.size()));
            }
        }
        double[] blocks = new double[structure.stream().blocks().size()];
        double[] single = descending(blocks.length);
        for (int[] copies : PrunableBlocks.blocks(structure)) {
            for (int index : copies) {
                blocks[index] = single[copies[0]];
            }
        }
        return new Scores(units, descending(structure.stream().layers()), blocks);
    }

    private static double[] descending(int count) {
        return IntStream.range(0, count).mapToDouble(index -> count - index).toArray();
    }
}
