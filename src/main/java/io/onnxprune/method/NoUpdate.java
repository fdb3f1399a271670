// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.option.Named;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import java.util.Map;

/** Weights stay as they are. */
@Named(value = "none", summary = "weights stay as they are")
public record NoUpdate() implements WeightUpdate {
    @Override
    public boolean changesWeights() {
        return false;
    }

    @Override
    public Map<Value, Tensor> update(PruningState state, PassContext context) {
        return Map.of();
    }
}
