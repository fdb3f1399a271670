// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Structure;
import java.util.Collection;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Block influence of layers and residual blocks (ShortGPT, arXiv 2403.03853, section 3): 1 - the mean cosine, over
 * positions, between the residual stream before and after the layer or block. Blocks that hardly change the direction
 * of the stream are least important.
 */
public final class BlockInfluence implements Importance {
    /**
     * A range of neighbouring residual blocks.
     *
     * @param first index of the first block in the residual stream
     * @param last index of the last block, inclusive
     */
    public record Span(int first, int last) {}

    /** Measures similarities. */
    public interface Similarities {
        /**
         * Measures the mean cosine between the input of the first block and the output of the last block of each span.
         *
         * @throws UserException if the model cannot be run
         */
        Map<Span, Double> measure(Collection<Span> spans);
    }

    private final PruneSet prune;
    private final Similarities similarities;

    /** Creates scores for the layers and blocks of {@code prune}. */
    public BlockInfluence(PruneSet prune, Similarities similarities) {
        this.prune = prune;
        this.similarities = similarities;
    }

    /**
     * Refuses structures other than layers and blocks.
     *
     * @throws UserException if {@code prune} has others
     */
    public static void require(PruneSet prune) {
        if (!prune.roles().isEmpty()) {
            throw new UserException("metric block-influence scores layers and blocks only, not " + prune
                    + "; prune only layers or blocks, or choose another metric");
        }
    }

    /**
     * Scores the layers and blocks that can be pruned. All others have score 0.
     *
     * @throws UserException if units of dimensions are to be pruned too
     */
    @Override
    public Scores score(Structure structure, Log log) {
        require(prune);
        List<Block> blocks = structure.stream().blocks();
        Set<Span> wanted = new LinkedHashSet<>();
        if (prune.layers()) {
            PrunableBlocks.layers(structure).forEach(layer -> wanted.add(span(layer)));
        }
        if (prune.blocks()) {
            PrunableBlocks.blocks(structure).forEach(copies -> wanted.add(new Span(copies[0], copies[0])));
        }
        wanted.removeIf(span -> blocks.get(span.first).pin() != null);
        Map<Span, Double> measured = similarities.measure(wanted);
        double[] layers = PrunableBlocks.layers(structure).stream()
                .mapToDouble(layer -> 1 - measured.getOrDefault(span(layer), 1.0))
                .toArray();
        double[] single = new double[blocks.size()];
        for (int index = 0; index < single.length; index++) {
            single[index] = 1 - measured.getOrDefault(new Span(index, index), 1.0);
        }
        return new Scores(Map.of(), layers, single);
    }

    private static Span span(int[] layer) {
        return new Span(layer[0], layer[layer.length - 1]);
    }
}
