// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.GreedyRemoval;
import io.onnxprune.obs.GreedyRemoval.Rule;
import io.onnxprune.obs.LayerProblem;
import io.onnxprune.obs.RemovalOrder;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;

/**
 * Optimal brain surgeon: a unit is chosen by the error of its consumers when the kept weights compensate (SlimGPT,
 * arXiv 2412.18110).
 *
 * @param rule the order of removal
 * @param damping share of the mean diagonal of XᵀX that is added to it
 */
@Named(value = "obs", summary = "the loss of the consumers when the kept weights compensate")
public record ObsSelection(
        @Option(
                "exact: one unit at a time by the exact cost of pruning it; paper: the scores and groups of the SlimGPT paper;"
                        + " independent: each unit by its cost of an independent removal; obd: the cost without"
                        + " compensation; obd-diagonal: this cost by the diagonal only.")
        Order rule,

        @Option("Added to the diagonal of XᵀX, as a share of its mean.")
        double damping)
        implements Selection {
    /** The order in which units are pruned. */
    public enum Order {
        /** One at a time by the exact cost of its removal. */
        EXACT,
        /** The scores and groups of the SlimGPT paper. */
        PAPER,
        /** Each by its exact cost of an independent removal. */
        INDEPENDENT,
        /** Each by its cost without compensation. */
        OBD,
        /** Each by its cost without compensation, with only the diagonal of XᵀX. */
        OBD_DIAGONAL
    }

    /** The exact order, with the damping of the papers. */
    public ObsSelection() {
        this(Order.EXACT, 0.01);
    }

    /** The rule of removal for a dimension. */
    public Rule ruleOf(Dimension dimension) {
        return switch (rule) {
            // All layers consume the hidden width. Greedy removal would hold the matrices of all of them in memory.
            case EXACT -> dimension.role() == Role.HIDDEN ? Rule.INDEPENDENT : Rule.EXACT;
            case PAPER -> dimension.role() == Role.FFN ? Rule.DYNAMIC_GROUPS : Rule.GROUPED_CHOLESKY;
            case INDEPENDENT -> Rule.INDEPENDENT;
            case OBD -> Rule.OBD;
            case OBD_DIAGONAL -> Rule.OBD_DIAGONAL;
        };
    }

    @Override
    public int[] choose(Dimension dimension, List<LayerProblem> consumers, int count, Measured measured) {
        Damping damped = new Damping(damping, measured.positions(), dimension.name(), measured.log());
        RemovalOrder removal = GreedyRemoval.of(consumers, count, ruleOf(dimension), damped);
        measured.log()
                .debug(String.format(
                        Locale.ROOT,
                        "%s: %d of %d units are pruned at a cost of %.4g",
                        dimension.name(),
                        count,
                        consumers.get(0).units().size(),
                        Arrays.stream(removal.costs()).sum()));
        return removal.order();
    }
}
