// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.compensate.LayerwisePruning;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import java.util.Map;
import java.util.Optional;

/** The outputs of the consumers of pruned units come as near to their former values as they can (SlimGPT, arXiv 2412.18110). */
@Named(
        value = "least-squares",
        summary = "the outputs of the consumers of pruned units come as near to their former values as they can")
public record LeastSquaresUpdate(
        @Option("Added to the diagonal of XᵀX, as a share of its mean.")
        double damping,

        @Option(
                "The outputs that the layer had on its present inputs, or those that bring the residual stream to that of the dense"
                        + " model.")
        Target target)
        implements WeightUpdate {
    /** Which results are approached. */
    public enum Target {
        OWN,
        DENSE
    }

    /** The layers' own results. */
    public LeastSquaresUpdate() {
        this(0.01, Target.OWN);
    }

    @Override
    public Optional<LayerwisePruning.Update> layerwise() {
        return Optional.of(new LayerwisePruning.Update(false, damping, target == Target.DENSE));
    }

    @Override
    public Cost cost(CostModel model) {
        return model.forward().then(model.inputMoments()).then(model.solving());
    }

    @Override
    public Map<Value, Tensor> update(PruningState state, PassContext context) {
        return LayerwiseUpdates.run(state, new LayerwisePruning.Method(Optional.empty(), layerwise()), context)
                .updates();
    }
}
