// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.compensate.ObsImportance;
import io.onnxprune.compensate.ObsImportance.Curvature;
import io.onnxprune.compensate.ObsImportance.Members;
import io.onnxprune.compensate.ObsSelection;
import io.onnxprune.diag.UsageException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.ExpertImportance;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.Reduction;
import io.onnxprune.plan.Scores;
import io.onnxprune.plan.Taylor;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;

/** The loss when the kept weights compensate (optimal brain surgeon; The LLM Surgeon, arXiv 2312.17244). */
@Named(value = "obs", summary = "the loss when the kept weights compensate")
public record ObsMetric(
        @Option("The cost of an error: its square at the output of the linear layer, or its effect on the loss.")
        Curvature curvature,

        ObsSelection selection,

        @Option(
                "For curvature loss: the linear layers that sum over a unit, or also those that produce it, whose costs are"
                        + " added.")
        Members members,

        @Option(
                "Dimensions that no linear layer of plain numbers sums over, such as channels of quantised weights: they are not"
                        + " pruned; or, for curvature loss, they are scored by the diagonal of the Fisher matrix, and nothing"
                        + " compensates; with divergence, experts by the KL divergence of the model without each, from one run"
                        + " of the model for each expert.")
        Others others)
        implements ImportanceMetric {
    /** Dimensions whose consumers cannot be solved for. */
    public enum Others {
        KEEP,
        FISHER,
        DIVERGENCE
    }

    /** Errors as they are, of the consumers. */
    public ObsMetric() {
        this(Curvature.OUTPUT, new ObsSelection(), Members.CONSUMERS, Others.KEEP);
    }

    public ObsMetric {
        if (others != Others.KEEP && curvature != Curvature.LOSS) {
            throw new UsageException("others " + others.name().toLowerCase(Locale.ROOT)
                    + " needs curvature loss: only then costs are in the unit of the loss");
        }
        if (members == Members.ALL && curvature != Curvature.LOSS) {
            throw new UsageException(
                    "members all needs curvature loss: the costs of producers are measured by gradients");
        }
    }

    private boolean ofLoss() {
        return curvature == Curvature.LOSS;
    }

    @Override
    public boolean needsRows() {
        return true;
    }

    @Override
    public boolean solves() {
        return true;
    }

    @Override
    public Pass.Moments moments() {
        return ofLoss() ? Pass.Moments.FISHER : Pass.Moments.INPUTS;
    }

    @Override
    public Budget restrict(Budget budget, DenseModel dense, PassContext context) {
        String method = context.settings().method();
        if (others == Others.KEEP) {
            return dense.layers().restrict(budget, dense.structure(), ofLoss(), method, context.log());
        }
        LinearLayers.requireUnits(budget, method);
        List<Dimension> unscored = unscored(budget.prune(), dense);
        if (!unscored.isEmpty()) {
            Dimension first = unscored.get(0);
            boolean anyExperts = unscored.stream().anyMatch(one -> one.role() == Role.EXPERTS);
            String how = others == Others.DIVERGENCE && anyExperts ? "divergences (experts) or gradients" : "gradients";
            context.log()
                    .warn(unscored.size() + " dimensions are scored by " + how
                            + ", and nothing compensates for what they" + " lose: " + first.name() + ", "
                            + dense.layers().reason(first, true));
        }
        return budget;
    }

    private static List<Dimension> unscored(PruneSet prune, DenseModel dense) {
        return dense.layers().unscored(prune, dense.structure(), true);
    }

    @Override
    public Cost cost(CostModel model) {
        Cost measured = ofLoss() ? model.activationGradients().then(model.gradientMoments()) : model.forward();
        Cost solved = measured.then(model.inputMoments()).then(model.removal());
        return others == Others.DIVERGENCE ? solved.then(model.divergences()) : solved;
    }

    @Override
    public Scores score(PruningState state, PassContext context) {
        Scores solved = new ObsImportance(
                        MeasuredStates.of(state.pruned(), state, context),
                        context.prune(),
                        new ObsImportance.Settings(curvature, members, selection))
                .score(state.dense().structure(), context.log());
        return others == Others.KEEP ? solved : withOthers(solved, state, context);
    }

    /**
     * Scores with those of the other dimensions: ½ Σ w² Σₙ gₙ² over the weights w of the last member of a unit, with the
     * gradients gₙ of single rows. The costs ½ tr(ΔWᵀ A ΔW G) are sums of products of two sums over positions, so they
     * are that many times larger. Those are sums over all positions of squared gradients of a row's mean, so a divergence in
     * nats a token counts (N / (T - 1))² times, for N positions in rows of T tokens.
     */
    private Scores withOthers(Scores solved, PruningState state, PassContext context) {
        Set<Dimension> unscored = Set.copyOf(unscored(context.prune(), state.dense()));
        if (unscored.isEmpty()) {
            return solved;
        }
        List<long[]> rows = context.statistics().rows();
        double positions = (double) rows.size() * rows.get(0).length;
        List<Dimension> experts = others == Others.DIVERGENCE
                ? unscored.stream().filter(one -> one.role() == Role.EXPERTS).toList()
                : List.of();
        Scores all = solved;
        if (!experts.isEmpty()) {
            double scale = Math.pow(positions / (rows.get(0).length - 1), 2);
            all = all.with(divergences(experts, state, context), scale);
        }
        if (experts.size() == unscored.size()) {
            return all;
        }
        Taylor.Gradients gradients = context.statistics()
                .gradients(
                        state.pruned(),
                        List.of(this, context.prune(), solved.units().keySet()));
        Scores fisher = new Taylor(
                        Taylor.Kind.ELEMENT2,
                        Reduction.LAST,
                        one -> unscored.contains(one) && !experts.contains(one),
                        gradients)
                .score(state.dense().structure(), context.log());
        return all.with(fisher, 0.5 * positions * rows.size());
    }

    /** The divergence of the model without each expert, in nats a token. */
    private static Scores divergences(List<Dimension> experts, PruningState state, PassContext context) {
        Map<String, double[]> units = new HashMap<>();
        context.statistics()
                .contributions(state.pruned())
                .measure(experts, ExpertImportance.Kind.DIVERGENCE)
                .forEach((dimension, sums) -> units.put(dimension.name(), sums.contributions()));
        return Scores.ofUnits(units, state.dense().structure());
    }
}
