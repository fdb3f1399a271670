// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.Place;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;

/**
 * Derivatives of a loss by gates on the inputs of a linear layer y = xW, from one sum over all positions: C = Xᵀ D, with D
 * the gradients of the loss at y. A gate z multiplies the channels of a unit u, so dL/dz is the sum of x·dL/dx over them, which is
 * tr(C_uᵀ W_u). The inputs of removed units are computed too, so their gates have derivatives.
 *
 * <p>With compensation, a gate moves the layer along weights that are solved anew. Then a removed unit adds only what the
 * kept channels K do not predict of it, x_u - x_K A_KK⁻¹ A_Ku, and a kept unit takes away what the other kept channels do not
 * predict, with the weights that it has now.
 */
public final class Gates {
    private Gates() {}

    /**
     * The derivative by the gate of each unit where nothing compensates.
     *
     * @param w weights {@code [n, out]}
     * @param c Xᵀ D, {@code [n, out]}
     * @param units the channels of each unit
     */
    public static double[] plain(Matrix w, Matrix c, List<int[]> units) {
        double[] channels = products(w, c);
        return units.stream()
                .mapToDouble(
                        unit -> IntStream.of(unit).mapToDouble(i -> channels[i]).sum())
                .toArray();
    }

    /**
     * The derivative by the gate of each unit where the kept weights compensate.
     *
     * @param layer with the weights that {@link LeastSquares#keep} gives for {@code kept}
     * @param c Xᵀ D at the solved weights, {@code [n, out]}
     * @param kept the kept input channels, ascending
     * @param units the channels of each unit, at least one; all of them are kept, or none
     * @param damping λ as a share of the mean diagonal, as for the solved weights
     * @throws io.onnxprune.diag.UserException when a value is not finite or the second moment cannot be inverted
     */
    public static double[] compensated(Layer layer, Matrix c, int[] kept, List<int[]> units, Damping damping) {
        damping.checkFinite(c, "gradient");
        int n = layer.a.rows();
        int[] placeOf = new int[n];
        Arrays.fill(placeOf, -1);
        for (int i = 0; i < kept.length; i++) {
            placeOf[kept[i]] = i;
        }
        int[] removed = IntStream.range(0, n).filter(i -> placeOf[i] < 0).toArray();
        double mean = Damping.meanDiagonal(layer.a);
        Matrix factor = damping.raise(kept.length, share -> Damping.factored(layer.a.select(kept, kept), share * mean));
        try (Matrix predicted = c.selectRows(kept)) {
            Cholesky.solve(factor, predicted);
            double[] channels = new double[n];
            residuals(layer, c, removed, kept, predicted, channels);
            Cholesky.invert(factor);
            Blas.mirror(factor);
            try (Matrix p = Place.HOST.move(factor)) {
                return units.stream()
                        .mapToDouble(unit -> placeOf[unit[0]] < 0
                                ? IntStream.of(unit)
                                        .mapToDouble(i -> channels[i])
                                        .sum()
                                : ofKept(layer, unit, placeOf, p, predicted))
                        .toArray();
            }
        }
    }

    /**
     * A linear layer with gates.
     *
     * @param a second moment of the inputs {@code [n, n]}, symmetric
     * @param w weights of all inputs {@code [n, out]}
     * @param solved the weights of the kept inputs that compensate for the others {@code [n, out]}
     */
    public record Layer(Matrix a, Matrix w, Matrix solved) {}

    /** Σ over outputs of (C - A_:K A_KK⁻¹ C_K) ⊙ W for removed channels. */
    private static void residuals(
            Layer layer, Matrix c, int[] removed, int[] kept, Matrix predicted, double[] channels) {
        try (Matrix across = layer.a.select(removed, kept);
                Matrix rest = c.selectRows(removed);
                Matrix weights = layer.w.selectRows(removed)) {
            Blas.multiply(-1, across, false, predicted, false, 1, rest);
            double[] products = products(weights, rest);
            for (int i = 0; i < removed.length; i++) {
                channels[removed[i]] = products[i];
            }
        }
    }

    /** tr(P_uu⁻¹ (P C_K)_u W_uᵀ) with the solved weights W. */
    private static double ofKept(Layer layer, int[] unit, int[] placeOf, Matrix p, Matrix predicted) {
        int[] places = IntStream.of(unit).map(i -> placeOf[i]).toArray();
        try (Matrix own = p.select(places, places);
                Matrix change = predicted.selectRows(places);
                Matrix weights = layer.solved.selectRows(unit)) {
            if (!Cholesky.factor(own)) {
                throw new SingularException();
            }
            Cholesky.solve(own, change);
            return Arrays.stream(products(weights, change)).sum();
        }
    }

    /** The inner products of the rows of two matrices. */
    private static double[] products(Matrix left, Matrix right) {
        double[] one = new double[left.columns()];
        double[] other = new double[left.columns()];
        double[] sums = new double[left.rows()];
        for (int row = 0; row < sums.length; row++) {
            left.getRow(row, one);
            right.getRow(row, other);
            for (int i = 0; i < one.length; i++) {
                sums[row] += one[i] * other[i];
            }
        }
        return sums;
    }
}
