// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.compensate.KroneckerUpdate;
import io.onnxprune.compensate.KroneckerUpdate.Settings;
import io.onnxprune.compensate.KroneckerUpdate.Sides;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import java.util.Map;

/** Updates in Kronecker-factored curvature (The LLM Surgeon, arXiv 2312.17244, section 4.3). */
@Named(
        value = "kronecker",
        summary =
                "least squares by XᵀX for consumers of pruned units and by DᵀD for their producers, measured once and not block by"
                        + " block")
public record KroneckerWeightUpdate(
        @Option("The consumers of pruned units change (inputs), their producers (outputs), or both.")
        Sides sides,

        @Option("Pruned units are compensated for together (correlated updates), not one by one.")
        boolean together,

        @Option("Added to the diagonal of XᵀX, as a share of its mean.")
        double damping,

        @Option("Added to the diagonal of DᵀD, as a share of its mean.")
        double gradientDamping)
        implements WeightUpdate {
    /** Correlated updates of the consumers. */
    public KroneckerWeightUpdate() {
        this(Sides.INPUTS, true, 0.01, 0.1);
    }

    /** Producers have other moments than those that importance is measured by. */
    @Override
    public Pass.Moments moments() {
        return sides == Sides.INPUTS ? Pass.Moments.INPUTS : Pass.Moments.NONE;
    }

    @Override
    public boolean differentiates() {
        return sides != Sides.INPUTS;
    }

    @Override
    public Cost cost(CostModel model) {
        return model.solving();
    }

    @Override
    public Map<Value, Tensor> update(PruningState state, PassContext context) {
        return KroneckerUpdate.of(
                MeasuredStates.of(state.beforeChoice(), state, context),
                state.plan(),
                new Settings(sides, together, damping, gradientDamping));
    }
}
