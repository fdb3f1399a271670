package io.onnxprune.recipe;

import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Importance;
import io.onnxprune.plan.Magnitude;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.RandomImportance;
import java.util.Locale;

/** What the passes that make a plan stand for. */
public final class PlanPasses {
    private PlanPasses() {}

    /** The importance that a {@link PassKind#SCORE} pass asks for, computed with so many threads. */
    public static Importance importance(Pass score, int threads) {
        return switch (score.word("metric")) {
            case "magnitude" ->
                new Magnitude(
                        constant(Magnitude.Norm.class, score, "norm"),
                        constant(Magnitude.Reduction.class, score, "reduction"),
                        threads);
            case "random" -> new RandomImportance(score.integer("seed"));
            default -> throw new IllegalArgumentException("no importance " + score.word("metric"));
        };
    }

    /** Whether the importance that a {@link PassKind#SCORE} pass asks for is measured on data. */
    public static boolean needsData(Pass score) {
        return switch (score.word("metric")) {
            case "magnitude", "random" -> false;
            default -> true;
        };
    }

    /** The budget of an {@link PassKind#ALLOCATE} pass, with a ratio as its target. */
    public static Budget budget(Pass allocate) {
        return new Budget(
                PruneSet.parse(allocate.words("prune")),
                Budget.Goal.RATIO,
                allocate.number("ratio"),
                constant(Budget.Scope.class, allocate, "scope"),
                constant(Budget.Layout.class, allocate, "layout"),
                allocate.integer("round-to"),
                allocate.integer("round-heads"),
                allocate.words("protect"),
                allocate.integer("skip-first"),
                allocate.integer("skip-last"));
    }

    private static <E extends Enum<E>> E constant(Class<E> type, Pass pass, String key) {
        return Enum.valueOf(type, pass.word(key).toUpperCase(Locale.ROOT).replace('-', '_'));
    }
}
