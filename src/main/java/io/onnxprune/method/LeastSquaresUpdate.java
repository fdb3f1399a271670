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

/** The consumers of what is pruned come as near to their results as they can (SlimGPT, arXiv 2412.18110). */
@Named(
        value = "least-squares",
        summary = "the linear layers that sum over what is pruned come as near to their results as they can")
public record LeastSquaresUpdate(
        @Option("What is added to the diagonal of XᵀX, as a share of its mean.")
        double damping,

        @Option(
                "The results of the layers as the blocks before have become, or what the residual stream of the dense model"
                        + " needs.")
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
