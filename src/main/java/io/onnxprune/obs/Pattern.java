package io.onnxprune.obs;

/** Which elements of a layer's weights may become zeros together. */
public sealed interface Pattern {
    /**
     * Any, up to a share of all elements.
     *
     * @param share 0 to 1
     */
    record Unstructured(double share) implements Pattern {
        public Unstructured {
            if (!(share >= 0 && share <= 1)) {
                throw new IllegalArgumentException("share " + share);
            }
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
    }
}
