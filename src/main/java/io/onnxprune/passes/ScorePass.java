// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
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
import io.onnxprune.pass.Scheduled;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.PruneSet;
import java.util.HashSet;
import java.util.Map;
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

    /**
     * Refuses what the metric cannot score, and a model without gradients, before text is written and measured.
     * Only operators without a rule, and fused ones, which may have forms without gradients, are suspected to have no
     * derivative.
     */
    @Override
    public void check(DenseModel dense, PassContext context) {
        metric.check(dense, context);
        Structure structure = dense.structure();
        boolean suspect = !structure.analysis().facts().unknown().isEmpty()
                || structure.analysis().program().ops().stream()
                        .anyMatch(op -> !op.node().domain().isEmpty());
        if (metric.differentiates() && suspect) {
            context.statistics().requireGradients(structure.analysis().program().model(), scored(dense, context));
        }
    }

    /** The names of the weights that are scored. */
    private Set<String> scored(DenseModel dense, PassContext context) {
        PruneSet prune = context.prune();
        boolean all = prune.layers() || prune.blocks();
        Map<String, String> refused = all
                ? Map.of()
                : metric.restrict(Budget.ofRatio(prune, 0.5), dense, context.withLog(Log.NONE))
                        .refused();
        Set<String> names = new HashSet<>();
        for (Dimension dimension : dense.structure().dimensions()) {
            boolean pruned = dimension.isPrunable()
                    && prune.roles().contains(dimension.role())
                    && !refused.containsKey(dimension.name());
            if (all || pruned) {
                dimension
                        .members()
                        .forEach(member -> names.add(
                                member.use().op().input(member.use().input()).name()));
            }
        }
        return names;
    }

    /** The same in any step: what changes from step to step is the state. */
    @Override
    public Object work(Scheduled here, DenseModel dense) {
        return this;
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
