// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import java.util.Map;
import java.util.TreeMap;
import java.util.function.DoubleUnaryOperator;

/**
 * Searches for a step length with a small function value in a few evaluations. The function is expected to decrease
 * from zero at first.
 */
final class LineSearch {
    /**
     * The best step length.
     *
     * @param length the step length; zero if no length has a smaller value than zero has
     * @param value the function value there
     */
    record Found(double length, double value) {}

    /** The maximal number of times that the first length is halved or doubled. */
    private static final int FACTORS = 10;

    private final DoubleUnaryOperator function;
    private final TreeMap<Double, Double> values = new TreeMap<>();
    private double best;

    private LineSearch(DoubleUnaryOperator function, double atZero) {
        this.function = function;
        this.values.put(0.0, atZero);
    }

    /**
     * Doubles or halves the step length while the function decreases. Then it tries the vertex of the parabola through
     * the best length and its two neighbours.
     *
     * @param atZero the function value at zero
     * @param first the first step length to try, positive
     * @return the smallest value found; values that are infinite or not a number never count as smaller
     */
    static Found run(DoubleUnaryOperator function, double atZero, double first) {
        LineSearch search = new LineSearch(function, atZero);
        search.bracket(first);
        search.refine();
        return new Found(search.best, search.values.get(search.best));
    }

    private void bracket(double first) {
        boolean longer = tryLength(first);
        double tried = first;
        boolean decreased = longer;
        for (int i = 0; i < FACTORS && (decreased || best == 0); i++) {
            tried = longer ? 2 * tried : tried / 2;
            decreased = tryLength(tried);
        }
    }

    private boolean tryLength(double tried) {
        double value = function.applyAsDouble(tried);
        boolean less = value < values.get(best);
        values.put(tried, value);
        best = less ? tried : best;
        return less;
    }

    private void refine() {
        Map.Entry<Double, Double> shorter = values.lowerEntry(best);
        Map.Entry<Double, Double> longer = values.higherEntry(best);
        if (shorter == null || longer == null) {
            return;
        }
        double before = (values.get(best) - shorter.getValue()) / (best - shorter.getKey());
        double after = (longer.getValue() - values.get(best)) / (longer.getKey() - best);
        double curvature = (after - before) / (longer.getKey() - shorter.getKey());
        double lowest = (shorter.getKey() + best) / 2 - before / (2 * curvature);
        if (lowest > shorter.getKey() && lowest < longer.getKey()) {
            tryLength(lowest);
        }
    }
}
