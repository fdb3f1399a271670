// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Matrix;
import java.util.BitSet;
import java.util.List;

/**
 * What one linear layer {@code y = x w} loses in the quadratic model ½ tr(Δwᵀ a Δw g) when units of its inputs are removed.
 *
 * @param a second moment of the inputs, Σ xᵀx over all positions, {@code [n, n]}, symmetric
 * @param w weights {@code [n, out]}: a row for each input channel
 * @param g second moment of the gradients of the outputs, {@code [out, out]}, symmetric; null for the identity
 * @param units the channels of each unit, disjoint; a unit may have none, and channels of no unit always stay
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
