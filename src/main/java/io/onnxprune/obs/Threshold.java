// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

import java.util.function.Consumer;
import java.util.function.DoubleConsumer;

/**
 * The lowest costs of a great many, none of which are held: they are counted by the leading bits of their numbers, twice, which
 * tells them apart to one part in a million. Of costs as high as the highest that are taken, the first are.
 */
public final class Threshold {
    /** Bits of a number that are looked at in each of two passes; the sign is not, since costs are never negative. */
    private static final int LEADING = 16;

    private static final int FOLLOWING = 15;

    private final int last;
    private long equal;

    private Threshold(int last, long equal) {
        this.last = last;
        this.equal = equal;
    }

    /** All costs. */
    public static Threshold all() {
        return new Threshold(Integer.MAX_VALUE, 0);
    }

    /**
     * The {@code count} lowest.
     *
     * @param costs hands all of them over, none negative, in the same order whenever it is asked
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

    /** Whether a cost is among the lowest; to be asked about all of them once, in the order that they were handed over in. */
    public boolean takes(double cost) {
        int key = key(cost);
        return key < last || key == last && equal-- > 0;
    }

    private static int key(double cost) {
        return (int) (Double.doubleToRawLongBits(cost) >>> 32);
    }
}
