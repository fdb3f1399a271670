// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.method.ImportanceMetric;
import io.onnxprune.method.MagnitudeMetric;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.Budget;
import java.util.Set;

/** Measures importance. */
@Named(value = "score", summary = "Measures the importance of every unit, layer and block.")
public record ScorePass(@Option("The importance metric.") ImportanceMetric metric) implements Pass {
    /** The size of weights. */
    public ScorePass() {
        this(new MagnitudeMetric());
    }

    @Override
    public Set<Fact> requires() {
        return metric.needsRows() ? Set.of(Fact.ROWS) : Set.of();
    }

    @Override
    public Set<Fact> provides() {
        return Set.of(Fact.SCORES);
    }

    @Override
    public boolean solves() {
        return metric.solves();
    }

    @Override
    public Moments moments() {
        return metric.moments();
    }

    @Override
    public boolean differentiates() {
        return metric.differentiates();
    }

    @Override
    public Budget restrict(Budget budget, DenseModel dense, PassContext context) {
        return metric.restrict(budget, dense, context);
    }

    @Override
    public Cost cost(CostModel model) {
        return metric.cost(model);
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        return state.withScores(metric.score(state, context));
    }
}
