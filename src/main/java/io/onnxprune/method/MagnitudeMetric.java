// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.Magnitude;
import io.onnxprune.plan.Reduction;
import io.onnxprune.plan.Scores;

/** The size of weights, a baseline of LLM-Pruner (arXiv 2305.11627). */
@Named(value = "magnitude", summary = "the size of weights")
public record MagnitudeMetric(
        @Option("Sums of absolute values or of squares.") Magnitude.Norm norm,
        @Option(TaylorMetric.REDUCTION) Reduction reduction)
        implements ImportanceMetric {
    /** Sums of squares. */
    public MagnitudeMetric() {
        this(Magnitude.Norm.L2, Reduction.SUM);
    }

    @Override
    public Scores score(PruningState state, PassContext context) {
        return new Magnitude(norm, reduction, context.settings().threads())
                .score(state.dense().structure(), context.log());
    }
}
