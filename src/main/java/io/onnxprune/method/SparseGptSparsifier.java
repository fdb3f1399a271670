// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.compensate.Sparsification;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;

/** Zeros block by block, on the outputs of the blocks before; the other weights compensate (SparseGPT, arXiv 2301.00774). */
@Named(
        value = "sparsegpt",
        summary = "block by block, on the outputs of the sparsified blocks before; the other weights compensate")
public record SparseGptSparsifier(
        LayerwiseZeros zeros,

        @Option("Added to the diagonal of XᵀX, as a share of its mean.")
        double damping) implements Sparsifier {
    /** Half of the weights of each matrix. */
    public SparseGptSparsifier() {
        this(new LayerwiseZeros(), 0.01);
    }

    @Override
    public boolean isNothing() {
        return zeros.isNothing();
    }

    @Override
    public Result sparsify(PruningState state, PassContext context) {
        return zeros.run(Sparsification.Method.SPARSEGPT, damping, state, context);
    }
}
