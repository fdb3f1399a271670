// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.compensate.Sparsification;
import io.onnxprune.option.Named;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;

/** Zeros by weights times the size of inputs; the other weights stay (Wanda, arXiv 2306.11695). */
@Named(
        value = "wanda",
        summary = "block by block, by weights times the size of inputs; the other weights do not change")
public record WandaSparsifier(LayerwiseZeros zeros) implements Sparsifier {
    private static final double DAMPING = 0.01;

    /** Half of the weights of each matrix. */
    public WandaSparsifier() {
        this(new LayerwiseZeros());
    }

    @Override
    public boolean isNothing() {
        return zeros.isNothing();
    }

    @Override
    public Result sparsify(PruningState state, PassContext context) {
        return zeros.run(Sparsification.Method.WANDA, DAMPING, state, context);
    }
}
