// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.compensate.Sparsification;
import io.onnxprune.diag.UsageException;
import io.onnxprune.option.Option;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import java.util.OptionalDouble;

/** Zeros by {@link Sparsification}, layer by layer: the options that its methods share. */
public record LayerwiseZeros(
        @Option(
                value = "Zeros are anywhere, or n of every m neighbouring inputs of one output.",
                values = ZeroPattern.VALUES)
        ZeroPattern pattern,

        @Option(value = "Share of zeros in each matrix; 0.5 without it.", below = 1)
        OptionalDouble ratio) {
    private static final double USUAL = 0.5;

    /** Half of the weights of each matrix, anywhere. */
    public LayerwiseZeros() {
        this(ZeroPattern.unstructured(), OptionalDouble.empty());
    }

    public LayerwiseZeros {
        if (pattern.kind() == ZeroPattern.Kind.STRUCTURED) {
            throw new UsageException("pattern structured is known only to by surgeon");
        }
        if (pattern.isGrouped() && ratio.isPresent()) {
            throw new UsageException("ratio has no effect with pattern " + pattern + ", which makes " + pattern.zeros()
                    + " of every " + pattern.of() + " weights zero");
        }
    }

    boolean isNothing() {
        return ratio.isPresent() && ratio.getAsDouble() == 0;
    }

    Sparsifier.Result run(Sparsification.Method method, double damping, PruningState state, PassContext context) {
        Sparsification editor = new Sparsification(
                state.pruned(),
                state.dense().layers(),
                new Sparsification.Request(
                        method, pattern.withShare(context.position().current().part(ratio.orElse(USUAL))), damping),
                context.workFolder(),
                context.log());
        context.statistics().sweep(state.pruned(), false, editor);
        return new Sparsifier.Result(editor.updates(), editor.zeros());
    }
}
