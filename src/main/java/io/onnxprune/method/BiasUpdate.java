// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.compensate.LayerwisePruning;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.option.Named;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import java.util.Map;
import java.util.Optional;

/** The consumers of what is pruned add the mean of what they lose to their biases (FLAP, arXiv 2312.11983). */
@Named(value = "bias", summary = "the consumers of pruned units add the mean of the pruned terms to their biases")
public record BiasUpdate() implements WeightUpdate {
    @Override
    public boolean changesBiases() {
        return true;
    }

    @Override
    public Optional<LayerwisePruning.Update> layerwise() {
        return Optional.of(new LayerwisePruning.Update(true, 0, false));
    }

    @Override
    public Cost cost(CostModel model) {
        return model.forward();
    }

    @Override
    public Map<Value, Tensor> update(PruningState state, PassContext context) {
        return LayerwiseUpdates.run(state, new LayerwisePruning.Method(Optional.empty(), layerwise()), context)
                .updates();
    }
}
