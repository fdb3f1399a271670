// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;

/**
 * Dimensions of equal size that keep equal counts. It is a single dimension unless layers are tied. The possible counts
 * are in descending order. Each step to the next one prunes the least important of the remaining units.
 */
final class TiedDimensions {
    private final List<Dimension> dimensions;
    private final List<double[]> scores;
    private final List<int[]> leastFirst = new ArrayList<>();
    private int[] counts;
    private int position;

    /**
     * Creates a group. Its counts are the size, then the multiples of {@code step} below it, down to the first that no dimension
     * forbids ({@link Dimension.Units#least}).
     */
    TiedDimensions(List<Dimension> dimensions, List<double[]> scores, int step) {
        this.dimensions = dimensions;
        this.scores = scores;
        for (double[] score : scores) {
            leastFirst.add(IntStream.range(0, score.length)
                    .boxed()
                    .sorted(Comparator.comparingDouble(unit -> score[unit]))
                    .mapToInt(Integer::intValue)
                    .toArray());
        }
        int size = dimensions.get(0).size();
        int least = dimensions.stream()
                .mapToInt(dimension -> dimension.units().least())
                .max()
                .orElse(1);
        int below = Math.max(0, (size - 1) / step - (least - 1) / step);
        counts = new int[below + 1];
        counts[0] = size;
        for (int i = 1; i <= below; i++) {
            counts[i] = ((size - 1) / step - i + 1) * step;
        }
    }

    List<Dimension> dimensions() {
        return dimensions;
    }

    Role role() {
        return dimensions.get(0).role();
    }

    int size() {
        return counts[0];
    }

    int count() {
        return counts[position];
    }

    /** The smallest possible count. */
    int least() {
        return counts[counts.length - 1];
    }

    int position() {
        return position;
    }

    int lastPosition() {
        return counts.length - 1;
    }

    boolean canShrink() {
        return position < counts.length - 1;
    }

    boolean canGrow() {
        return position > 0;
    }

    /** The position whose count is nearest to {@code wanted} units; the larger count of two. */
    int nearest(double wanted) {
        int above = atLeast(wanted);
        boolean below = above + 1 < counts.length && counts[above] - wanted > wanted - counts[above + 1];
        return below ? above + 1 : above;
    }

    /** The last position that keeps {@code wanted} units or more. */
    int atLeast(double wanted) {
        int low = 0;
        int high = counts.length - 1;
        while (low < high) {
            int middle = (low + high + 1) / 2;
            if (counts[middle] >= wanted) {
                low = middle;
            } else {
                high = middle - 1;
            }
        }
        return low;
    }

    /** Tells a count which units go first. */
    void order(RunningCount running) {
        for (int i = 0; i < dimensions.size(); i++) {
            running.order(dimensions.get(i), leastFirst.get(i));
        }
    }

    void moveTo(int target, RunningCount running) {
        position = target;
        dimensions.forEach(dimension -> running.keep(dimension, counts[target]));
    }

    /** The next step down, for messages: how many units of which dimensions. */
    String nextStep() {
        int units = counts[position] - counts[position + 1];
        return (units == 1 ? "one unit of " : units + " units of ")
                + dimensions.get(0).name()
                + (dimensions.size() > 1 ? " and of each of %d more".formatted(dimensions.size() - 1) : "");
    }

    /** The size that the next step down would free. */
    ParameterCount.Size nextLoss(RunningCount running) {
        return running.lossOf(dimensions, counts[position + 1]);
    }

    /** Leaves out the counts at which a model costs no less than at a larger one. */
    void dropPlateaus(RunningCount running) {
        double cheapest = running.amount();
        List<Integer> worth = new ArrayList<>(List.of(counts[0]));
        int[] all = counts;
        for (int i = 1; i < all.length; i++) {
            moveTo(i, running);
            if (running.amount() < cheapest) {
                cheapest = running.amount();
                worth.add(all[i]);
            }
        }
        moveTo(0, running);
        counts = worth.stream().mapToInt(Integer::intValue).toArray();
    }

    /** The sum of the scores of the units that the step from {@code from} to the next position prunes. */
    double stepScore(int from) {
        double sum = 0;
        for (int i = 0; i < scores.size(); i++) {
            int[] order = leastFirst.get(i);
            for (int rank = order.length - counts[from]; rank < order.length - counts[from + 1]; rank++) {
                sum += scores.get(i)[order[rank]];
            }
        }
        return sum;
    }

    /** The kept units of the {@code index}th dimension, ascending. */
    int[] kept(int index) {
        int[] order = leastFirst.get(index);
        int[] kept = Arrays.copyOfRange(order, order.length - count(), order.length);
        Arrays.sort(kept);
        return kept;
    }
}
