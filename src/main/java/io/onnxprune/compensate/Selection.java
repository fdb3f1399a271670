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
     * What the second moments of the consumers were measured on.
     *
     * @param positions how many
     */
    record Measured(long positions, Log log) {}

    /**
     * Chooses units.
     *
     * @param consumers the linear layers that sum over the dimension, each with XᵀX {@code [n, n]} and W {@code [n, m]}; their
     *     unit lists are the units that are left of the dimension
     * @param count how many units to prune
     * @return indices into these units, the first to prune first
     */
    int[] choose(Dimension dimension, List<LayerProblem> consumers, int count, Measured measured);
}
