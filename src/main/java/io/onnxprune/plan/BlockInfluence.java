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
 * Scores of layers and residual blocks: 1 - the mean cosine, over positions, between what the residual stream carries
 * before and after (block influence: ShortGPT, arXiv 2403.03853, section 3). What hardly turns the stream goes first.
 */
public final class BlockInfluence implements Importance {
    /** Neighbouring residual blocks, from {@code first} to {@code last}, as indices into the stream's blocks. */
    public record Span(int first, int last) {}

    /** Where similarities come from. */
    public interface Similarities {
        /**
         * Measures the mean cosine between what enters the first block of each span and what leaves its last one.
         *
         * @throws UserException if the model cannot be run
         */
        Map<Span, Double> measure(Collection<Span> spans);
    }

    private final PruneSet prune;
    private final Similarities similarities;

    /** Scores layers and blocks, whichever {@code prune} names; nothing else. */
    public BlockInfluence(PruneSet prune, Similarities similarities) {
        this.prune = prune;
        this.similarities = similarities;
    }

    /**
     * Scores what can be taken out; the rest has score 0.
     *
     * @throws UserException if units of dimensions are to be pruned too
     */
    @Override
    public Scores score(Structure structure, Log log) {
        if (!prune.roles().isEmpty()) {
            throw new UserException("metric block-influence scores layers and blocks only, not " + prune
                    + "; prune layers or blocks alone, or take another metric");
        }
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
