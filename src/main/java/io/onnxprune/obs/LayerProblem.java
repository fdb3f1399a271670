// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Matrix;
import java.util.BitSet;
import java.util.List;

/**
 * The problem of removing input units of one linear layer {@code y = x w} under the quadratic loss model ½ tr(Δwᵀ a Δw
 * g).
 *
 * @param a second moment of the inputs, Σ xᵀx over all positions, {@code [n, n]}, symmetric: the Hessian of the
 *     layer's squared output error up to a factor
 * @param w weights {@code [n, out]}, one row for each input channel
 * @param g second moment of the gradients of the outputs, {@code [out, out]}, symmetric; null for the identity
 * @param units channels of each unit, disjoint; a unit may be empty, and channels of no unit are never removed
 */
@SuppressWarnings("ArrayRecordComponent") // a holder, never compared
public record LayerProblem(Matrix a, Matrix w, Matrix g, List<int[]> units) {
    public LayerProblem {
        int n = a.rows();
        if (a.columns() != n || w.rows() != n || (g != null && (g.rows() != w.columns() || g.columns() != g.rows()))) {
            throw new IllegalArgumentException("second moments " + a + " and " + g + " do not fit weights " + w);
        }
        units = List.copyOf(units);
        BitSet seen = new BitSet(n);
        for (int[] unit : units) {
            for (int channel : unit) {
                if (channel < 0 || channel >= n || seen.get(channel)) {
                    throw new IllegalArgumentException("channel " + channel + " of " + n + " is in two units or none");
                }
                seen.set(channel);
            }
        }
    }
}
