// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.compensate.PrunedModel;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.rewrite.PrunedState;

/** Pruned models that are measured in a run. */
public final class MeasuredStates {
    private MeasuredStates() {}

    /** A pruned model of a run: that of {@code state}, or one near to it. */
    public static PrunedModel of(PrunedState pruned, PruningState state, PassContext context) {
        return new PrunedModel(
                pruned,
                state.dense().layers(),
                context.statistics().calibrator(pruned.model()),
                context.statistics().source(pruned),
                context.workFolder(),
                context.log());
    }
}
