// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.Reduction;
import io.onnxprune.plan.Scores;
import io.onnxprune.plan.Taylor;
import java.util.List;

/** The change of the loss by its Taylor expansion (LLM-Pruner, arXiv 2305.11627, section 3.2). */
@Named(value = "taylor", summary = "the change of the loss, by gradients")
public record TaylorMetric(
        @Option(
                "w is a weight, g its gradient and h the mean of its squares over rows: abs(Σ w·g), Σ abs(w·g), Σ w²·h, or"
                        + " Σ abs(w·g - w²·h/2).")
        Taylor.Kind importance,

        @Option(REDUCTION) Reduction reduction)
        implements ImportanceMetric {
    static final String REDUCTION =
            "How the scores of the tensors in a coupled group become one, channel by channel; first and last in order of"
                    + " execution.";

    /** First order, weight by weight. */
    public TaylorMetric() {
        this(Taylor.Kind.ELEMENT1, Reduction.SUM);
    }

    @Override
    public boolean needsRows() {
        return true;
    }

    @Override
    public boolean differentiates() {
        return true;
    }

    @Override
    public Cost cost(CostModel model) {
        return model.weightGradients();
    }

    @Override
    public Scores score(PruningState state, PassContext context) {
        PruneSet prune = context.prune();
        return new Taylor(
                        importance,
                        reduction,
                        prune,
                        context.statistics().gradients(state.pruned(), List.of(this, prune)))
                .score(state.dense().structure(), context.log());
    }
}
