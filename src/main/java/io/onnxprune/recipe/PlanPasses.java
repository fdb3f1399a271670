package io.onnxprune.recipe;

import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Importance;
import io.onnxprune.plan.LayerCount;
import io.onnxprune.plan.Magnitude;
import io.onnxprune.plan.PositionImportance;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.RandomImportance;
import io.onnxprune.plan.Reduction;
import io.onnxprune.plan.Schedule;
import io.onnxprune.plan.Taylor;
import java.util.Locale;
import java.util.OptionalDouble;

/** What the passes that make a plan stand for. */
public final class PlanPasses {
    private PlanPasses() {}

    /**
     * The importance that a {@link PassKind#SCORE} pass asks for.
     *
     * @param prune what may be removed, so that nothing else need be scored
     * @param threads for reading weights
     * @param gradients where those come from, if {@link #needsData}
     */
    public static Importance importance(Pass score, PruneSet prune, int threads, Taylor.Gradients gradients) {
        Reduction reduction = constant(Reduction.class, score, "reduction");
        return switch (score.word("metric")) {
            case "magnitude" -> new Magnitude(constant(Magnitude.Norm.class, score, "norm"), reduction, threads);
            case "random" -> new RandomImportance(score.integer("seed"));
            case "position" -> new PositionImportance();
            case "taylor" -> new Taylor(constant(Taylor.Kind.class, score, "importance"), reduction, prune, gradients);
            default -> throw new IllegalArgumentException("no importance " + score.word("metric"));
        };
    }

    /** Whether the importance that a {@link PassKind#SCORE} pass asks for is measured on data. */
    public static boolean needsData(Pass score) {
        return score.word("metric").equals("taylor");
    }

    /** The budget of an {@link PassKind#ALLOCATE} pass, with a ratio as its target. */
    public static Budget budget(Pass allocate) {
        return new Budget(
                PruneSet.parse(allocate.words("prune")),
                Budget.Goal.RATIO,
                allocate.number("ratio"),
                constant(Budget.Scope.class, allocate, "scope"),
                constant(Budget.Rank.class, allocate, "rank"),
                constant(Budget.Layout.class, allocate, "layout"),
                allocate.integer("round-to"),
                allocate.integer("round-heads"),
                allocate.words("protect"),
                LayerCount.parse(allocate.word("skip-first")),
                LayerCount.parse(allocate.word("skip-last")),
                new Schedule(
                        constant(Schedule.Shape.class, allocate, "schedule"),
                        allocate.isGiven("first-ratio")
                                ? OptionalDouble.of(allocate.number("first-ratio"))
                                : OptionalDouble.empty()));
    }

    private static <E extends Enum<E>> E constant(Class<E> type, Pass pass, String key) {
        return Enum.valueOf(type, pass.word(key).toUpperCase(Locale.ROOT).replace('-', '_'));
    }
}
