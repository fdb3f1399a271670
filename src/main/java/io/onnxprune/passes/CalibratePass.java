// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.diag.UsageException;
import io.onnxprune.eval.CalibrationData;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import java.util.Comparator;
import java.util.List;
import java.util.Locale;
import java.util.Set;

/** Provides the rows that later passes measure on. They are read before the first pass, so that a broken file is told at once. */
@Named(
        value = "calibrate",
        summary = "Provides rows of tokens to measure on; options of the command line say where they come from.")
public record CalibratePass(
        @Option(value = "Number of rows.", min = 1) int samples,
        @Option(value = "Tokens in each row.", min = 2) int seqLen,

        @Option(
                "Gradients are those of the data's next tokens (0: empirical Fisher), or of so many that the model draws"
                        + " at each position (true Fisher).")
        int draws)
        implements Pass {
    /** 32 rows of 128 tokens. */
    public CalibratePass() {
        this(32, 128, 0);
    }

    @Override
    public Set<Fact> provides() {
        return Set.of(Fact.ROWS);
    }

    @Override
    public boolean isRepeatedOnResume() {
        return true;
    }

    /**
     * Refuses draws that nothing has a use for.
     *
     * @throws UsageException if no later pass measures second moments of gradients
     */
    @Override
    public void check(DenseModel dense, PassContext context) {
        boolean used = context.position().later().stream().anyMatch(pass -> pass.moments() == Moments.FISHER);
        if (draws > 0 && !used) {
            throw new UsageException(
                    "recipe " + context.settings().method() + " has calibrate draws, which only score metric obs with"
                            + " curvature loss and sparsify by surgeon have a use for: gradients of tokens that a model draws are zero on average");
        }
    }

    /** Damping makes any second moment invertible; it would hide that there are too few tokens. */
    @Override
    public PruningState run(PruningState state, PassContext context) {
        List<Pass> later = context.position().later();
        long tokens = context.data().calibration().map(CalibrationData::tokens).orElse(0L);
        LinearLayers layers = state.dense().layers();
        if (tokens > 0 && later.stream().anyMatch(Pass::solves)) {
            layers.all().stream()
                    .filter(layers::isInside)
                    .max(Comparator.comparingInt(LinearLayer::inputs))
                    .filter(widest -> widest.inputs() > tokens)
                    .ifPresent(widest -> context.log()
                            .warn(String.format(
                                    Locale.ROOT,
                                    "%,d tokens of calibration data do not determine how the %,d inputs of node %s depend on each other, so"
                                            + " damping decides; calibrate on at least %,d tokens (--samples, --seq-len)",
                                    tokens,
                                    widest.inputs(),
                                    widest.node(),
                                    widest.inputs())));
        }
        return state;
    }
}
