// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.option.Named;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.PositionImportance;
import io.onnxprune.plan.Scores;

/** Position: what comes first is worth most, without any measurement. */
@Named(value = "position", summary = "position: what comes first is worth most")
public record PositionMetric() implements ImportanceMetric {
    @Override
    public Scores score(PruningState state, PassContext context) {
        return new PositionImportance().score(state.dense().structure(), context.log());
    }
}
