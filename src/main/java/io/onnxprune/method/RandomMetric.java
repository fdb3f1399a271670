// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.RandomImportance;
import io.onnxprune.plan.Scores;
import java.util.OptionalLong;

/** Chance: the baseline that any metric has to beat. */
@Named(value = "random", summary = "chance")
public record RandomMetric(
        @Option("The seed; without it that of the run.") OptionalLong seed) implements ImportanceMetric {
    /** The seed of the run. */
    public RandomMetric() {
        this(OptionalLong.empty());
    }

    @Override
    public Scores score(PruningState state, PassContext context) {
        return new RandomImportance(seed.orElse(context.settings().seed()))
                .score(state.dense().structure(), context.log());
    }
}
