// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.UsageException;
import java.util.List;

/**
 * How much to remove, of what, and by which rules.
 *
 * @param prune what may be removed
 * @param goal what the target counts
 * @param amount the target: a share of the model's parameters to remove, in [0, 1), or the parameters or bytes to keep
 * @param scope how units of different dimensions compete
 * @param rank what the units of different dimensions are compared by in {@link Scope#GLOBAL}
 * @param layout whether layers may differ
 * @param roundTo FFN and hidden widths are cut to multiples of this many channels
 * @param roundHeads head counts are cut to multiples of this
 * @param protect patterns ({@code *} and {@code ?}) of dimension names, {@code layers.3} and {@code blocks.3} to leave
 * @param skipFirst how many first layers to leave
 * @param skipLast how many last layers to leave
 * @param schedule how the shares that layers lose differ in {@link Scope#LOCAL}
 */
public record Budget(
        PruneSet prune,
        Goal goal,
        double amount,
        Scope scope,
        Rank rank,
        Layout layout,
        int roundTo,
        int roundHeads,
        List<String> protect,
        LayerCount skipFirst,
        LayerCount skipLast,
        Schedule schedule) {
    /** What the target counts. */
    public enum Goal {
        RATIO,
        PARAMETERS,
        BYTES
    }

    /** How units of different dimensions compete. */
    public enum Scope {
        /** Every dimension loses its share ({@link Schedule}), its least important units. */
        LOCAL,
        /** One ranking of all units. */
        GLOBAL
    }

    /** What units of different dimensions are compared by in one ranking. */
    public enum Rank {
        /** What a unit is worth for each parameter that it costs. */
        SCORE_PER_PARAMETER,
        /** What a unit is worth, whatever it costs. */
        SCORE
    }

    /** Whether layers may differ. */
    public enum Layout {
        PER_LAYER,
        /** Dimensions of equal role and size keep equal counts. */
        UNIFORM
    }

    public Budget {
        protect = List.copyOf(protect);
        if (goal == Goal.RATIO && !(amount >= 0 && amount < 1)) {
            throw new UsageException("the ratio to remove must be at least 0 and less than 1, not " + amount);
        }
        if (goal != Goal.RATIO && !(amount > 0)) {
            throw new UsageException("the " + what(goal) + " to keep must be more than 0, not " + amount);
        }
        if (roundTo < 1 || roundHeads < 1) {
            throw new UsageException(
                    "sizes can only be rounded to multiples of 1 or more, not of " + Math.min(roundTo, roundHeads));
        }
        if (schedule.shape() != Schedule.Shape.UNIFORM && scope == Scope.GLOBAL) {
            throw new UsageException(
                    "schedule " + schedule
                            + " has no effect in scope global, where one ranking decides; ask for scope local or schedule uniform");
        }
    }

    /** Removes a share of the model's parameters, every layer by itself, without rounding or protection. */
    public static Budget ofRatio(PruneSet prune, double ratio) {
        LayerCount none = LayerCount.of(0);
        return new Budget(
                prune,
                Goal.RATIO,
                ratio,
                Scope.LOCAL,
                Rank.SCORE_PER_PARAMETER,
                Layout.PER_LAYER,
                1,
                1,
                List.of(),
                none,
                none,
                Schedule.uniform());
    }

    public Budget withTarget(Goal changed, double target) {
        return new Budget(
                prune,
                changed,
                target,
                scope,
                rank,
                layout,
                roundTo,
                roundHeads,
                protect,
                skipFirst,
                skipLast,
                schedule);
    }

    public Budget withScope(Scope changed) {
        return new Budget(
                prune,
                goal,
                amount,
                changed,
                rank,
                layout,
                roundTo,
                roundHeads,
                protect,
                skipFirst,
                skipLast,
                schedule);
    }

    public Budget withRank(Rank changed) {
        return new Budget(
                prune,
                goal,
                amount,
                scope,
                changed,
                layout,
                roundTo,
                roundHeads,
                protect,
                skipFirst,
                skipLast,
                schedule);
    }

    public Budget withLayout(Layout changed) {
        return new Budget(
                prune, goal, amount, scope, rank, changed, roundTo, roundHeads, protect, skipFirst, skipLast, schedule);
    }

    public Budget withRounding(int sizes, int heads) {
        return new Budget(
                prune, goal, amount, scope, rank, layout, sizes, heads, protect, skipFirst, skipLast, schedule);
    }

    public Budget withProtection(List<String> patterns, int first, int last) {
        return withProtection(patterns, LayerCount.of(first), LayerCount.of(last));
    }

    public Budget withProtection(List<String> patterns, LayerCount first, LayerCount last) {
        return new Budget(
                prune, goal, amount, scope, rank, layout, roundTo, roundHeads, patterns, first, last, schedule);
    }

    public Budget withSchedule(Schedule changed) {
        return new Budget(
                prune, goal, amount, scope, rank, layout, roundTo, roundHeads, protect, skipFirst, skipLast, changed);
    }

    private static String what(Goal goal) {
        return goal == Goal.BYTES ? "bytes" : "parameters";
    }

    /** The target as the share of {@code whole} to remove, counted in what the target counts. */
    public double ratio(ParameterCount.Size whole) {
        return goal == Goal.RATIO ? amount : 1 - amount / measure(whole);
    }

    /** What of {@code size} the target counts. */
    public long measure(ParameterCount.Size size) {
        return goal == Goal.BYTES ? size.bytes() : size.parameters();
    }

    /** The unit of {@link #measure}, for messages. */
    public String unit() {
        return what(goal);
    }

    /** What should be left of a model of size {@code whole}. */
    double target(ParameterCount.Size whole) {
        return goal == Goal.RATIO ? measure(whole) * (1 - amount) : amount;
    }

    /** This budget for the same model with something added to it, of which as much is to be left in all. */
    public Budget rebased(ParameterCount.Size whole, ParameterCount.Size larger) {
        return goal == Goal.RATIO ? withTarget(goal, 1 - target(whole) / measure(larger)) : this;
    }

    /**
     * The budget of one of {@code steps} equal steps from a model of size {@code whole} to this one's target.
     *
     * @param step from 1 to {@code steps}
     */
    public Budget atStep(int step, int steps, ParameterCount.Size whole) {
        if (step == steps || target(whole) >= measure(whole)) {
            return this;
        }
        double done = (double) step / steps;
        return withTarget(goal, goal == Goal.RATIO ? amount * done : measure(whole) * (1 - done) + amount * done)
                .withSchedule(schedule.scaled(done));
    }
}
