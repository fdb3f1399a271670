// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.compensate.SurgeonSparsification;
import io.onnxprune.diag.UsageException;
import io.onnxprune.obs.Pattern;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import java.util.OptionalDouble;

/** Zeros where they cost the loss least, of all matrices together; the other weights compensate (LLM Surgeon). */
@Named(
        value = "surgeon",
        summary = "what costs the loss least of all matrices, by gradients, and the other weights compensate")
public record SurgeonSparsifier(
        @Option(
                value =
                        "Zeros are anywhere, n of every m neighbouring inputs of one output, or whole inputs and outputs of a"
                                + " matrix.",
                values = ZeroPattern.VALUES)
        ZeroPattern pattern,

        @Option(
                value =
                        "Share of zeros in all matrices together; 0.5 without it. With n:m all groups have their zeros unless a"
                                + " ratio says that only the cheapest do.",
                below = 1)
        OptionalDouble ratio,

        @Option("Added to the diagonal of XᵀX, as a share of its mean.")
        double damping,

        @Option("Added to the diagonal of DᵀD, as a share of its mean.")
        double gradientDamping,

        @Option(
                "Unless structured: how many zeros of a matrix are compensated for together, output by output; 0 for all.")
        int correlate)
        implements Sparsifier {
    private static final double USUAL = 0.5;

    /** Half of the weights, anywhere. */
    public SurgeonSparsifier() {
        this(ZeroPattern.unstructured(), OptionalDouble.empty(), 0.01, 0.1, 0);
    }

    public SurgeonSparsifier {
        if (pattern.isGrouped() && ratio.isPresent() && ratio.getAsDouble() > (double) pattern.zeros() / pattern.of()) {
            throw new UsageException("ratio " + ratio.getAsDouble() + " is more than the share of zeros that pattern "
                    + pattern + " has, which is " + (double) pattern.zeros() / pattern.of());
        }
        if (pattern.kind() == ZeroPattern.Kind.STRUCTURED && correlate > 0) {
            throw new UsageException(
                    "correlate has no effect with pattern structured, where all inputs and outputs of a"
                            + " matrix are compensated for together; leave it out");
        }
    }

    @Override
    public boolean isNothing() {
        return ratio.isPresent() && ratio.getAsDouble() == 0;
    }

    @Override
    public Pass.Moments moments() {
        return Pass.Moments.FISHER;
    }

    @Override
    public Cost cost(CostModel model) {
        return model.activationGradients()
                .then(model.inputMoments())
                .then(model.gradientMoments())
                .then(model.solving());
    }

    @Override
    public Result sparsify(PruningState state, PassContext context) {
        Pattern form = pattern.withShare(ratio.orElse(USUAL));
        double zeros = pattern.isGrouped() ? ratio.orElse(form.share()) : form.share();
        SurgeonSparsification.Result result = SurgeonSparsification.run(
                MeasuredStates.of(state.pruned(), state, context),
                new SurgeonSparsification.Request(
                        form, context.position().current().part(zeros), damping, gradientDamping, correlate));
        return new Result(result.updates(), result.zeros());
    }
}
