// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import java.util.Map;
import java.util.TreeMap;
import java.util.function.DoubleUnaryOperator;

/** Looks for a small value of a function of a positive number that falls at first, in a few evaluations. */
final class LineSearch {
    /** Where a value was found; at zero where none is smaller. */
    record Found(double length, double value) {}

    /** How often at most the first length is halved, or doubled. */
    private static final int FACTORS = 10;

    private final DoubleUnaryOperator function;
    private final TreeMap<Double, Double> known = new TreeMap<>();
    private double best;

    private LineSearch(DoubleUnaryOperator function, double atZero) {
        this.function = function;
        this.known.put(0.0, atZero);
    }

    /**
     * Doubles or halves a length as long as the function falls, and tries the lowest point of the parabola through the best
     * length and those on either side of it.
     *
     * @param first what is tried first
     * @return the least value that was found; one that is infinite or no number is never less
     */
    static Found run(DoubleUnaryOperator function, double atZero, double first) {
        LineSearch search = new LineSearch(function, atZero);
        search.bracket(first);
        search.refine();
        return new Found(search.best, search.known.get(search.best));
    }

    private void bracket(double first) {
        boolean longer = falls(first);
        double tried = first;
        boolean fell = longer;
        for (int i = 0; i < FACTORS && (fell || best == 0); i++) {
            tried = longer ? 2 * tried : tried / 2;
            fell = falls(tried);
        }
    }

    private boolean falls(double tried) {
        double value = function.applyAsDouble(tried);
        boolean less = value < known.get(best);
        known.put(tried, value);
        best = less ? tried : best;
        return less;
    }

    private void refine() {
        Map.Entry<Double, Double> shorter = known.lowerEntry(best);
        Map.Entry<Double, Double> longer = known.higherEntry(best);
        if (shorter == null || longer == null) {
            return;
        }
        double before = (known.get(best) - shorter.getValue()) / (best - shorter.getKey());
        double after = (longer.getValue() - known.get(best)) / (longer.getKey() - best);
        double curvature = (after - before) / (longer.getKey() - shorter.getKey());
        double lowest = (shorter.getKey() + best) / 2 - before / (2 * curvature);
        if (lowest > shorter.getKey() && lowest < longer.getKey()) {
            falls(lowest);
        }
    }
}
