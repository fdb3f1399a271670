// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.UsageException;
import io.onnxprune.option.Option;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * The size of the pruned model and the rules for reaching it.
 *
 * @param prune the structures that may be pruned
 * @param target the size of the pruned model
 * @param competition how units of different dimensions compete
 * @param rounding the multiples that sizes are rounded to
 * @param protection the dimensions and layers that are not pruned
 * @param refused the dimensions that a method cannot prune, each with the reason
 */
public record Budget(
        PruneSet prune,
        Target target,
        Competition competition,
        Rounding rounding,
        Protection protection,
        Map<String, String> refused) {
    /** The precision of the share that a step is to reach. */
    private static final double DECIMALS = 1e12;

    public Budget {
        refused = Collections.unmodifiableMap(new LinkedHashMap<>(refused));
    }

    /** A budget for a method that can prune every dimension. */
    public Budget(PruneSet prune, Target target, Competition competition, Rounding rounding, Protection protection) {
        this(prune, target, competition, rounding, protection, Map.of());
    }

    /** The measure of a target. */
    public enum Goal {
        RATIO,
        PARAMETERS,
        BYTES
    }

    /** How units of different dimensions compete. */
    public enum Scope {
        /** Every dimension loses a given ratio of its units ({@link Schedule}), the least important first. */
        LOCAL,
        /** One ranking of all units. */
        GLOBAL
    }

    /** The value by which units of different dimensions are compared in one ranking. */
    public enum Rank {
        /** The score of a unit divided by its parameters. */
        SCORE_PER_PARAMETER,
        /** The score of a unit. */
        SCORE
    }

    /** Whether layers may keep different sizes. */
    public enum Layout {
        /** Every dimension has its own count. */
        PER_LAYER,
        /** Dimensions of equal role and size keep equal counts. */
        UNIFORM
    }

    /**
     * The size of the pruned model.
     *
     * @param goal the measure
     * @param amount a share of the model's parameters to prune, in [0, 1), or the number of parameters or bytes to
     *     keep
     */
    public record Target(Goal goal, double amount) {
        public Target {
            if (goal == Goal.RATIO && !(amount >= 0 && amount < 1)) {
                throw new UsageException("the ratio to prune must be at least 0 and less than 1, not " + amount);
            }
            if (goal != Goal.RATIO && !(amount > 0)) {
                throw new UsageException("the " + measureName(goal) + " to keep must be more than 0, not " + amount);
            }
        }
    }

    /** How units of different dimensions compete. */
    public record Competition(
            @Option("local: every dimension is pruned by its own ratio; global: one ranking of all units.")
            Scope scope,

            @Option("For scope global: the value by which units of different dimensions are compared.")
            Rank rank,

            @Option("uniform: all layers keep the same number of heads and channels.")
            Layout layout,

            Schedule schedule) {
        /** One ratio for all dimensions. */
        public Competition() {
            this(Scope.LOCAL, Rank.SCORE_PER_PARAMETER, Layout.PER_LAYER, Schedule.uniform());
        }

        public Competition {
            if (schedule.shape() != Schedule.Shape.UNIFORM && scope == Scope.GLOBAL) {
                throw new UsageException(
                        "schedule " + schedule
                                + " has no effect in scope global, where one ranking decides; choose scope local or schedule uniform");
            }
        }
    }

    /** The multiples that sizes are rounded to. */
    public record Rounding(
            @Option(value = "FFN and hidden widths are cut to multiples of this.", key = "round-to", min = 1)
            int widths,

            @Option(value = "Head counts are cut to multiples of this.", key = "round-heads", min = 1)
            int heads) {
        /** No rounding. */
        public Rounding() {
            this(1, 1);
        }

        public Rounding {
            if (widths < 1 || heads < 1) {
                throw new UsageException(
                        "sizes can only be rounded to multiples of 1 or more, not of " + Math.min(widths, heads));
            }
        }
    }

    /** The dimensions and layers that are not pruned. */
    public record Protection(
            @Option("Patterns (* and ?) of dimension names, layers.N and blocks.N that are not pruned: ffn.0, heads.*.")
            List<String> protect,

            @Option(
                    value = "Number of first layers that are not pruned: 2, or 12.5%, rounded half up.",
                    values = LayerCount.VALUES)
            LayerCount skipFirst,

            @Option(value = "Number of last layers that are not pruned.", values = LayerCount.VALUES)
            LayerCount skipLast) {
        /** Nothing is protected. */
        public Protection() {
            this(List.of(), LayerCount.of(0), LayerCount.of(0));
        }

        public Protection {
            protect = List.copyOf(protect);
        }
    }

    /**
     * A budget that prunes a share of the model's parameters with one ratio for all dimensions, without rounding or
     * protection.
     */
    public static Budget ofRatio(PruneSet prune, double ratio) {
        return new Budget(prune, new Target(Goal.RATIO, ratio), new Competition(), new Rounding(), new Protection());
    }

    public Goal goal() {
        return target.goal;
    }

    public double amount() {
        return target.amount;
    }

    public Scope scope() {
        return competition.scope;
    }

    public Rank rank() {
        return competition.rank;
    }

    public Layout layout() {
        return competition.layout;
    }

    public Schedule schedule() {
        return competition.schedule;
    }

    public int roundTo() {
        return rounding.widths;
    }

    public int roundHeads() {
        return rounding.heads;
    }

    public List<String> protect() {
        return protection.protect;
    }

    public LayerCount skipFirst() {
        return protection.skipFirst;
    }

    public LayerCount skipLast() {
        return protection.skipLast;
    }

    public Budget withTarget(Goal changed, double amount) {
        return new Budget(prune, new Target(changed, amount), competition, rounding, protection, refused);
    }

    public Budget withScope(Scope changed) {
        return with(new Competition(changed, rank(), layout(), schedule()));
    }

    public Budget withRank(Rank changed) {
        return with(new Competition(scope(), changed, layout(), schedule()));
    }

    public Budget withLayout(Layout changed) {
        return with(new Competition(scope(), rank(), changed, schedule()));
    }

    public Budget withSchedule(Schedule changed) {
        return with(new Competition(scope(), rank(), layout(), changed));
    }

    private Budget with(Competition changed) {
        return new Budget(prune, target, changed, rounding, protection, refused);
    }

    public Budget withRounding(int sizes, int heads) {
        return new Budget(prune, target, competition, new Rounding(sizes, heads), protection, refused);
    }

    public Budget withProtection(List<String> patterns, int first, int last) {
        return withProtection(patterns, LayerCount.of(first), LayerCount.of(last));
    }

    public Budget withProtection(List<String> patterns, LayerCount first, LayerCount last) {
        return new Budget(prune, target, competition, rounding, new Protection(patterns, first, last), refused);
    }

    /** This budget for a method that cannot prune some dimensions, by name, each with the reason. */
    public Budget withRefused(Map<String, String> reasons) {
        return new Budget(prune, target, competition, rounding, protection, reasons);
    }

    private static String measureName(Goal goal) {
        return goal == Goal.BYTES ? "bytes" : "parameters";
    }

    /** Whether the budget prunes nothing. */
    public boolean isNothing() {
        return goal() == Goal.RATIO && amount() == 0;
    }

    /** The pruned share of {@code dense}, in the measure of the target. */
    public double ratio(ParameterCount.Size dense) {
        return goal() == Goal.RATIO ? amount() : 1 - amount() / measure(dense);
    }

    /** A size in the measure of the target. */
    public long measure(ParameterCount.Size size) {
        return goal() == Goal.BYTES ? size.bytes() : size.parameters();
    }

    /** The name of the measure, for messages. */
    public String unit() {
        return measureName(goal());
    }

    /** The size of the pruned model for a dense model of size {@code dense}, in the measure of the target. */
    public double target(ParameterCount.Size dense) {
        return goal() == Goal.RATIO ? measure(dense) * (1 - amount()) : amount();
    }

    /**
     * This budget for a model to which parameters were added. The pruned model keeps its size.
     *
     * @param dense size before the addition
     * @param larger size after the addition
     */
    public Budget rebased(ParameterCount.Size dense, ParameterCount.Size larger) {
        return goal() == Goal.RATIO && !dense.equals(larger)
                ? withTarget(goal(), decimal(1 - target(dense) / measure(larger)))
                : this;
    }

    /**
     * The budget of one of {@code steps} equal steps from a model of size {@code dense} to the target.
     *
     * @param step number of the step, from 1 to {@code steps}
     */
    public Budget atStep(int step, int steps, ParameterCount.Size dense) {
        if (step == steps || target(dense) >= measure(dense)) {
            return this;
        }
        double done = (double) step / steps;
        return withTarget(
                        goal(),
                        goal() == Goal.RATIO ? decimal(amount() * done) : measure(dense) * (1 - done) + amount() * done)
                .withSchedule(schedule().scaled(done));
    }

    /** A share without the last digits of binary fractions, so that the first of three steps to 0.3 reaches exactly 0.1. */
    private static double decimal(double share) {
        return Math.rint(share * DECIMALS) / DECIMALS;
    }
}
