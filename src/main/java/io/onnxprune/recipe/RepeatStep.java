// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import java.util.List;
import java.util.OptionalDouble;
import java.util.OptionalInt;

/**
 * A block of passes that reaches the target in several equal steps.
 *
 * @param steps how many; empty where the ratio says it
 * @param stepRatio the largest share of the parameters that one step prunes
 */
public record RepeatStep(OptionalInt steps, OptionalDouble stepRatio, List<PassStep> passes, String place)
        implements Step {
    /** What keeps a share that is a multiple of the step ratio from one more step. */
    private static final double ROUNDING = 1e-9;

    public RepeatStep {
        passes = List.copyOf(passes);
    }

    /** How many steps prune {@code ratio} of the parameters. */
    public int count(double ratio) {
        return steps.isPresent()
                ? steps.getAsInt()
                : (int) Math.max(1, Math.ceil(ratio / stepRatio.orElse(1) - ROUNDING));
    }

    RepeatStep withSteps(int count) {
        return new RepeatStep(OptionalInt.of(count), OptionalDouble.empty(), passes, place);
    }

    RepeatStep withPasses(List<PassStep> changed) {
        return new RepeatStep(steps, stepRatio, changed, place);
    }
}
