// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.ir.Tensor;

/** Changes of constants along their hidden axis, the first or the last one. Each is computed in float64 and rounded once. */
public interface StreamWeights {
    /** Each channel times its factor. */
    Tensor scaled(Tensor tensor, int axis, double[] factors);

    /** Without the mean over channels. */
    Tensor centred(Tensor tensor, int axis);

    /** In the new basis: row vectors along the axis are multiplied with an orthogonal matrix. */
    Tensor rotated(Tensor tensor, int axis);

    /** The sum over channels of a matrix, each times its factor: what a vector that is added before a linear layer adds behind. */
    double[] sums(Tensor tensor, int axis, double[] factors);
}
