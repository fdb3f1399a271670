// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.algebra.Matrix;
import java.util.List;

/**
 * The diagonal blocks of {@code p} and {@code s} (see {@link Downdate}) of units with few channels, always up to date.
 * There can be thousands of them, each too small for a call of the native library, so this is plain arithmetic on the
 * heap.
 */
final class SmallUnits {
    /** Largest number of channels of a small unit. */
    static final int MAX_CHANNELS = 16;

    /** Per unit, the offset of its channels, and the end; a unit that is not small has none here. */
    private final int[] begin;
    /** Per unit, the offset of its blocks, and the end. */
    private final int[] block;

    private final int[] channels;
    private final double[] p;
    private final double[] s;
    private final double[] u = new double[MAX_CHANNELS * MAX_CHANNELS];
    private final double[] k = new double[MAX_CHANNELS * MAX_CHANNELS];

    SmallUnits(List<int[]> units) {
        begin = new int[units.size() + 1];
        block = new int[units.size() + 1];
        for (int unit = 0; unit < units.size(); unit++) {
            int length = units.get(unit).length;
            int size = length <= MAX_CHANNELS ? length : 0;
            begin[unit + 1] = begin[unit] + size;
            block[unit + 1] = block[unit] + size * size;
        }
        channels = new int[begin[units.size()]];
        for (int unit = 0; unit < units.size(); unit++) {
            System.arraycopy(units.get(unit), 0, channels, begin[unit], size(unit));
        }
        p = new double[block[units.size()]];
        s = new double[block[units.size()]];
    }

    /** Number of units, small or not. */
    int count() {
        return begin.length - 1;
    }

    /** Channels of a small unit; 0 for one that is not small. */
    int size(int unit) {
        return begin[unit + 1] - begin[unit];
    }

    /** Whether no unit is small. */
    boolean isEmpty() {
        return channels.length == 0;
    }

    /** Reads the blocks of all remaining units, those at positions from {@code first} on, from upper triangles. */
    void read(Matrix fullP, Matrix fullS, int[] positionOf, int first) {
        if (!isEmpty()) {
            read(fullP, positionOf, first, p);
            read(fullS, positionOf, first, s);
        }
    }

    /** Reads the diagonal at once and other elements by parts of rows, so that a GPU is not asked for each element. */
    private void read(Matrix full, int[] positionOf, int first, double[] blocks) {
        double[] diagonal = full.diagonal();
        double[] part = new double[full.columns()];
        for (int unit = 0; unit < count(); unit++) {
            int size = size(unit);
            if (size == 0 || positionOf[channels[begin[unit]]] < first) {
                continue;
            }
            int[] positions = new int[size];
            int last = 0;
            for (int i = 0; i < size; i++) {
                positions[i] = positionOf[channels[begin[unit] + i]];
                last = Math.max(last, positions[i]);
            }
            for (int i = 0; i < size; i++) {
                int row = positions[i];
                blocks[block[unit] + i * size + i] = diagonal[row];
                if (row < last) {
                    full.block(row, row, 1, last - row + 1).getRow(0, part);
                }
                for (int j = 0; j < size; j++) {
                    if (positions[j] > row) {
                        blocks[block[unit] + Math.min(i, j) * size + Math.max(i, j)] = part[positions[j] - row];
                    }
                }
            }
        }
    }

    /**
     * Subtracts {@code lᵀl} from p and {@code lᵀz + zᵀl} from s for one row of l and of z, given for positions from
     * {@code first} on.
     */
    void subtract(double[] l, double[] z, int[] positionOf, int first) {
        for (int unit = 0; unit < count(); unit++) {
            int size = size(unit);
            if (size == 0 || positionOf[channels[begin[unit]]] < first) {
                continue;
            }
            int at = block[unit];
            for (int i = 0; i < size; i++) {
                int a = positionOf[channels[begin[unit] + i]] - first;
                for (int j = i; j < size; j++) {
                    int b = positionOf[channels[begin[unit] + j]] - first;
                    p[at + i * size + j] -= l[a] * l[b];
                    s[at + i * size + j] -= l[a] * z[b] + z[a] * l[b];
                }
            }
        }
    }

    /**
     * The cost of removing a small unit: ½ tr(p_BB⁻¹ s_BB), or ½ Σ s_jj/d_j with d the squared diagonal of the
     * Cholesky factor of p_BB. It is 0 when p_BB has no such factor; the unit is then chosen next, and its removal
     * reports the failure.
     *
     * @param grouped whether the second form is used
     */
    double cost(int unit, boolean grouped) {
        int n = size(unit);
        int at = block[unit];
        if (n == 1) {
            return p[at] > 0 ? Math.max(0, 0.5 * s[at] / p[at]) : 0;
        }
        if (!factor(n, at)) {
            return 0;
        }
        double sum = 0;
        if (grouped) {
            for (int j = 0; j < n; j++) {
                sum += s[at + j * n + j] / (u[j * n + j] * u[j * n + j]);
            }
            return Math.max(0, 0.5 * sum);
        }
        // First k = u⁻ᵀ s, then the part of k u⁻¹ that its diagonal needs.
        for (int i = 0; i < n; i++) {
            for (int j = 0; j < n; j++) {
                double value = s[at + Math.min(i, j) * n + Math.max(i, j)];
                for (int t = 0; t < i; t++) {
                    value -= u[t * n + i] * k[t * n + j];
                }
                k[i * n + j] = value / u[i * n + i];
            }
        }
        for (int i = 0; i < n; i++) {
            for (int j = 0; j <= i; j++) {
                double value = k[i * n + j];
                for (int t = 0; t < j; t++) {
                    value -= k[i * n + t] * u[t * n + j];
                }
                k[i * n + j] = value / u[j * n + j];
            }
            sum += k[i * n + i];
        }
        return Math.max(0, 0.5 * sum);
    }

    private boolean factor(int n, int at) {
        for (int i = 0; i < n; i++) {
            for (int j = i; j < n; j++) {
                double value = p[at + i * n + j];
                for (int t = 0; t < i; t++) {
                    value -= u[t * n + i] * u[t * n + j];
                }
                if (i == j) {
                    // NaN must fail too.
                    if (!(value > 0)) {
                        return false;
                    }
                    u[i * n + i] = Math.sqrt(value);
                } else {
                    u[i * n + j] = value / u[i * n + i];
                }
            }
        }
        return true;
    }
}
