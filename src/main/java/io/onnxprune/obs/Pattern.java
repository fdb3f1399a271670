// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.diag.UserException;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Comparator;
import java.util.stream.IntStream;

/** A sparsity pattern: which elements of a linear layer's weights may become zero. */
public sealed interface Pattern {
    /**
     * Unstructured sparsity: any elements, up to a share of all.
     *
     * @param share sparsity, 0 to 1
     */
    record Unstructured(double share) implements Pattern {
        public Unstructured {
            checkShare(share);
        }
    }

    /**
     * N:M sparsity: a fixed number of zeros in each group of neighbouring inputs of one output. Sparse tensor cores
     * take 2 of 4.
     *
     * @param zeros number of zeros in a group
     * @param of size of a group; must divide the number of inputs
     */
    record Grouped(int zeros, int of) implements Pattern {
        public Grouped {
            if (zeros < 0 || zeros > of || of < 1) {
                throw new IllegalArgumentException(zeros + " of " + of);
            }
        }

        @Override
        public double share() {
            return (double) zeros / of;
        }

        /**
         * Checks that the group size divides the number of inputs.
         *
         * @param label name of the layer, for the message
         * @param inputs number of inputs of the layer
         * @throws UserException when it does not
         */
        public void check(String label, int inputs) {
            if (inputs % of != 0) {
                throw new UserException(
                        "%s: its %d inputs cannot be divided into groups of %d; use a pattern whose groups divide them"
                                .formatted(label, inputs, of));
            }
        }

        /** The cost of the zeros in the group that begins at {@code begin}: the sum of its lowest costs. */
        public double cost(double[] costs, int begin) {
            double[] sorted = Arrays.copyOfRange(costs, begin, begin + of);
            Arrays.sort(sorted);
            double sum = 0;
            for (int i = 0; i < zeros; i++) {
                sum += sorted[i];
            }
            return sum;
        }

        /**
         * Marks the elements with the lowest costs in the group that begins at {@code begin}. Of equal costs the first
         * are marked.
         */
        public void mark(double[] costs, int begin, BitSet marks) {
            IntStream.range(begin, begin + of)
                    .boxed()
                    .sorted(Comparator.comparingDouble(i -> costs[i]))
                    .limit(zeros)
                    .forEach(marks::set);
        }
    }

    /**
     * Structured sparsity: whole inputs (rows) and outputs (columns), up to a share of all elements.
     *
     * @param share sparsity, 0 to 1
     */
    record Structured(double share) implements Pattern {
        public Structured {
            checkShare(share);
        }
    }

    /** The sparsity: the largest share of elements that become zero, 0 to 1. */
    double share();

    private static void checkShare(double share) {
        if (!(share >= 0 && share <= 1)) {
            throw new IllegalArgumentException("sparsity " + share);
        }
    }
}
