// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.obs.LayerProblem;
import io.onnxprune.option.Part;
import java.util.List;

/** Chooses the units of a dimension to prune when the inputs of its consumers are known, layer by layer. */
public interface Selection extends Part {
    /**
     * The measurement of the consumers' second moments.
     *
     * @param positions number of positions that were summed over
     * @param log receives messages
     */
    record Measured(long positions, Log log) {}

    /**
     * Chooses units.
     *
     * @param dimension the dimension
     * @param consumers the consumers of the dimension, each with XᵀX {@code [n, n]} and W {@code [n, m]}; their
     *     unit lists hold the remaining units of the dimension
     * @param count number of units to prune
     * @return indices into the unit lists, in the order of pruning
     */
    int[] choose(Dimension dimension, List<LayerProblem> consumers, int count, Measured measured);
}
