// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import java.util.function.Consumer;
import java.util.function.DoubleConsumer;

/**
 * A threshold that separates the lowest of very many costs without storing them. Costs are counted by their leading
 * bits in two passes, which distinguishes them to one part in a million. Of costs equal to the threshold, the first
 * ones are taken.
 */
public final class Threshold {
    /** Bits of a float64 that the two passes use. The sign is not used, because costs are never negative. */
    private static final int LEADING = 16;

    private static final int FOLLOWING = 15;

    private final int last;
    private long equal;

    private Threshold(int last, long equal) {
        this.last = last;
        this.equal = equal;
    }

    /** The threshold that takes all costs. */
    public static Threshold all() {
        return new Threshold(Integer.MAX_VALUE, 0);
    }

    /**
     * The threshold that takes the {@code count} lowest costs.
     *
     * @param costs passes all costs to the given consumer, none negative, in the same order on every call
     */
    public static Threshold lowest(long count, Consumer<DoubleConsumer> costs) {
        long[] coarse = new long[1 << LEADING];
        costs.accept(cost -> coarse[key(cost) >>> FOLLOWING]++);
        long before = 0;
        int bin = 0;
        while (bin < coarse.length && before + coarse[bin] <= count) {
            before += coarse[bin++];
        }
        if (bin == coarse.length) {
            return all();
        }
        int chosen = bin;
        long[] fine = new long[1 << FOLLOWING];
        costs.accept(cost -> {
            int key = key(cost);
            if (key >>> FOLLOWING == chosen) {
                fine[key & (1 << FOLLOWING) - 1]++;
            }
        });
        int place = 0;
        while (before + fine[place] <= count) {
            before += fine[place++];
        }
        return new Threshold(chosen << FOLLOWING | place, count - before);
    }

    /** Whether a cost is among the lowest. Must be called once for each cost, in the order of {@link #lowest}. */
    public boolean takes(double cost) {
        int key = key(cost);
        return key < last || key == last && equal-- > 0;
    }

    private static int key(double cost) {
        return (int) (Double.doubleToRawLongBits(cost) >>> 32);
    }
}
