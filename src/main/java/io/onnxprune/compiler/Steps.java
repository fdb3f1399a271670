// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.PrunedState;
import java.util.Map;

/**
 * Reaches a target in equal steps: each looks at the model that the steps before it left. Plans and weights stay in
 * terms of the original model, to which only the last plan is applied for good.
 */
final class Steps {
    /** What a method does in one step. */
    interface Method {
        /** Goes on from {@code state} until {@code budget}, which counts from the original model, is met. */
        Outcome step(PrunedState state, Budget budget);
    }

    /**
     * A plan for the original model, with full-size replacements for its weights.
     *
     * @param updates contents of constants of the original, where they change
     */
    record Outcome(Plan plan, Map<Value, Tensor> updates) {}

    /** Is told of every step that is done. */
    interface Listener {
        /** Step {@code step}, counted from 1, has come to {@code reached}. */
        void done(int step, Outcome reached);
    }

    private Steps() {}

    /** Takes {@code steps} steps from the whole model of {@code structure} to {@code budget}. */
    static Outcome run(Structure structure, String hash, Budget budget, int steps, Method method) {
        return run(
                structure, budget, steps, 0, new Outcome(Plan.keepAll(hash), Map.of()), method, (step, reached) -> {});
    }

    /** The same where the first {@code done} steps have come to {@code begun} already. */
    static Outcome run(
            Structure structure, Budget budget, int steps, int done, Outcome begun, Method method, Listener listener) {
        ParameterCount.Size whole = ParameterCount.of(structure).whole();
        Outcome reached = begun;
        for (int step = done + 1; step <= steps; step++) {
            PrunedState state = PrunedState.of(structure, reached.plan(), reached.updates());
            reached = method.step(state, budget.atStep(step, steps, whole));
            listener.done(step, reached);
        }
        return reached;
    }
}
