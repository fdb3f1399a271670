// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import io.onnxprune.diag.UserException;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Comparator;
import java.util.stream.IntStream;

/** Which elements of a layer's weights may become zeros together. */
public sealed interface Pattern {
    /**
     * Any, up to a share of all elements.
     *
     * @param share 0 to 1
     */
    record Unstructured(double share) implements Pattern {
        public Unstructured {
            checkShare(share);
        }
    }

    /**
     * So many of each group of neighbouring inputs of one output; 2 of 4 is what sparse tensor cores take.
     *
     * @param zeros elements of a group that become zero
     * @param of size of a group, a divisor of the number of inputs
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
         * Refuses a layer whose inputs are no multiple of a group.
         *
         * @param label how messages name the layer
         */
        public void check(String label, int inputs) {
            if (inputs % of != 0) {
                throw new UserException(
                        "%s: its %d inputs cannot be divided into groups of %d; use a pattern whose groups divide them"
                                .formatted(label, inputs, of));
            }
        }

        /** What the zeros of the group that begins at {@code begin} cost: the sum of its lowest costs. */
        public double cost(double[] costs, int begin) {
            double[] sorted = Arrays.copyOfRange(costs, begin, begin + of);
            Arrays.sort(sorted);
            double sum = 0;
            for (int i = 0; i < zeros; i++) {
                sum += sorted[i];
            }
            return sum;
        }

        /** Marks the elements of the group that begins at {@code begin} with the lowest costs; of equal ones the first. */
        public void mark(double[] costs, int begin, BitSet marks) {
            IntStream.range(begin, begin + of)
                    .boxed()
                    .sorted(Comparator.comparingDouble(i -> costs[i]))
                    .limit(zeros)
                    .forEach(marks::set);
        }
    }

    /**
     * All elements of an input or of an output, up to a share of all elements.
     *
     * @param share 0 to 1
     */
    record Structured(double share) implements Pattern {
        public Structured {
            checkShare(share);
        }
    }

    /** The largest share of zeros. */
    double share();

    private static void checkShare(double share) {
        if (!(share >= 0 && share <= 1)) {
            throw new IllegalArgumentException("share " + share);
        }
    }
}
