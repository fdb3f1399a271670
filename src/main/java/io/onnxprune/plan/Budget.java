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

    /** How a target is put. */
    public enum Goal {
        /** A share to prune. */
        RATIO,
        /** An amount to keep. */
        AMOUNT,
        /** How many times less the pruned model costs. */
        FACTOR
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
        /** The score of a unit divided by what it costs in the currency of the target: its parameters, bytes or time. */
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
     * @param goal how it is put
     * @param amount a share of the dense model to prune, in [0, 1); the amount to keep; or a factor of more than 1
     * @param currency what it is counted in
     */
    public record Target(Goal goal, double amount, Currency currency) {
        public Target {
            if (goal == Goal.RATIO && !(amount >= 0 && amount < 1)) {
                throw new UsageException("the ratio to prune must be at least 0 and less than 1, not " + amount);
            }
            if (goal == Goal.AMOUNT && !(amount > 0)) {
                throw new UsageException("the " + currency.unit() + " to keep must be more than 0, not " + amount);
            }
            if (goal == Goal.FACTOR && !(amount > 1 && amount < Double.POSITIVE_INFINITY)) {
                throw new UsageException("a factor to gain must be more than 1, not " + amount);
            }
        }

        /** A share of the parameters to prune, in [0, 1). */
        public static Target ratio(double share) {
            return new Target(Goal.RATIO, share, Currency.parameters());
        }

        /** A number of parameters to keep. */
        public static Target parameters(double kept) {
            return new Target(Goal.AMOUNT, kept, Currency.parameters());
        }

        /** A number of stored bytes to keep. */
        public static Target bytes(double kept) {
            return new Target(Goal.AMOUNT, kept, Currency.bytes());
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
        return new Budget(prune, Target.ratio(ratio), new Competition(), new Rounding(), new Protection());
    }

    public Goal goal() {
        return target.goal;
    }

    public double amount() {
        return target.amount;
    }

    /** What the target is counted in. */
    public Currency currency() {
        return target.currency;
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

    public Budget withTarget(Target changed) {
        return new Budget(prune, changed, competition, rounding, protection, refused);
    }

    /** This budget with its target counted in another currency of the same unit. */
    public Budget in(Currency changed) {
        return withTarget(new Target(goal(), amount(), changed));
    }

    private Budget withAmount(double changed) {
        return withTarget(new Target(goal(), changed, currency()));
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

    /** Whether the budget prunes nothing. */
    public boolean isNothing() {
        return goal() == Goal.RATIO && amount() == 0;
    }

    /** The pruned share of {@code dense}, in the currency of the target. */
    public double ratio(ParameterCount.Size dense) {
        return goal() == Goal.RATIO ? amount() : 1 - target(dense) / measure(dense);
    }

    /** The amount of a size in the currency of the target, in which it was counted. */
    public double measure(ParameterCount.Size size) {
        return currency().amount(size);
    }

    /** The amount of the pruned model for a dense model of size {@code dense}, in the currency of the target. */
    public double target(ParameterCount.Size dense) {
        return switch (goal()) {
            case RATIO -> measure(dense) * (1 - amount());
            case AMOUNT -> amount();
            case FACTOR -> measure(dense) / amount();
        };
    }

    /**
     * This budget for a model to which parameters were added. The pruned model keeps its size.
     *
     * @param dense size before the addition
     * @param larger size after the addition
     */
    public Budget rebased(ParameterCount.Size dense, ParameterCount.Size larger) {
        return goal() == Goal.RATIO && !dense.equals(larger)
                ? withAmount(decimal(1 - target(dense) / measure(larger)))
                : this;
    }

    /**
     * The budget of one of {@code steps} equal steps from a model of size {@code dense} to the target. Steps are equal in the
     * currency of the target.
     *
     * @param step number of the step, from 1 to {@code steps}
     */
    public Budget atStep(int step, int steps, ParameterCount.Size dense) {
        if (step == steps || target(dense) >= measure(dense)) {
            return this;
        }
        double done = (double) step / steps;
        Budget part = goal() == Goal.RATIO
                ? withAmount(decimal(amount() * done))
                : withTarget(new Target(Goal.AMOUNT, measure(dense) * (1 - done) + target(dense) * done, currency()));
        return part.withSchedule(schedule().scaled(done));
    }

    /** A share without the last digits of binary fractions, so that the first of three steps to 0.3 reaches exactly 0.1. */
    private static double decimal(double share) {
        return Math.rint(share * DECIMALS) / DECIMALS;
    }
}
