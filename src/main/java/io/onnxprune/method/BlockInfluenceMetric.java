// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.option.Named;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.BlockInfluence;
import io.onnxprune.plan.Scores;

/** How far a layer or a block turns the residual stream (ShortGPT, arXiv 2403.03853). */
@Named(value = "block-influence", summary = "how far a layer or block turns the residual stream")
public record BlockInfluenceMetric() implements ImportanceMetric {
    @Override
    public boolean needsRows() {
        return true;
    }

    @Override
    public void check(DenseModel dense, PassContext context) {
        BlockInfluence.require(context.prune());
    }

    @Override
    public Scores score(PruningState state, PassContext context) {
        return new BlockInfluence(context.prune(), context.statistics().similarities(state.pruned()))
                .score(state.dense().structure(), context.log());
    }
}
