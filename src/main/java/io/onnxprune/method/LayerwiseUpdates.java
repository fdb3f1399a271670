// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.compensate.LayerwisePruning;
import io.onnxprune.compensate.LayerwisePruning.Method;
import io.onnxprune.compensate.LayerwisePruning.Update;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.rewrite.PrunedState;

/** Layer-by-layer runs over the model before a choice. */
public final class LayerwiseUpdates {
    private LayerwiseUpdates() {}

    /**
     * Runs over the model of {@code state} before its choice.
     *
     * @return the run's plan and weights
     * @throws io.onnxprune.diag.UserException if a run fails, or a second moment cannot be inverted
     */
    public static LayerwisePruning run(PruningState state, Method method, PassContext context) {
        PrunedState before = state.beforeChoice();
        LayerwisePruning pruning = new LayerwisePruning(
                before, state.dense().layers(), state.plan(), method, context.workFolder(), context.log());
        context.statistics().sweep(before, method.update().map(Update::dense).orElse(false), pruning);
        return pruning;
    }
}
