// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dimension;
import java.util.Arrays;
import java.util.List;

/**
 * The pruning ratios of groups of tied dimensions. All of them rise with one number, the level. The level is the ratio
 * of the last layer as long as every ratio is within [0, 1]. Ratios outside are clipped and the others continue. So the
 * highest level prunes everything and the lowest nothing.
 */
final class LayerRatios {
    private final int[] layers;
    private final double[] progress;
    private final double first;
    private final double lowest;
    private final double highest;

    private LayerRatios(int[] layers, double[] progress, double first) {
        this.layers = layers;
        this.progress = progress;
        this.first = first;
        double slowest = Arrays.stream(progress).filter(f -> f > 0).min().orElse(1);
        // Once every other layer has an extreme ratio, a first layer whose ratio is fixed must change too.
        lowest = first - first / slowest;
        highest = first + (1 - first) / slowest;
    }

    /** One ratio for all groups. */
    static LayerRatios uniform(List<TiedDimensions> groups) {
        return of(Schedule.uniform(), groups, 0);
    }

    /**
     * The ratios by {@code schedule}, whose layers are those of {@code groups}.
     *
     * @param mean the ratio of all layers in a uniform schedule
     */
    static LayerRatios of(Schedule schedule, List<TiedDimensions> groups, double mean) {
        int[] layers = groups.stream()
                .flatMap(group -> group.dimensions().stream())
                .mapToInt(Dimension::layer)
                .filter(layer -> layer >= 0)
                .distinct()
                .sorted()
                .toArray();
        double[] progress = new double[layers.length];
        Arrays.setAll(progress, index -> schedule.progress(index, layers.length));
        return new LayerRatios(layers, progress, schedule.first(mean));
    }

    /** The level at which nothing is pruned. */
    double lowest() {
        return lowest - first;
    }

    /** The level at which everything is pruned. */
    double highest() {
        return highest + 1 - first;
    }

    /**
     * The ratio of {@code group}. For dimensions that do not belong to a single layer it is the mean over all layers.
     */
    double of(TiedDimensions group, double level) {
        int layer = group.dimensions().get(0).layer();
        boolean single = layer >= 0 && group.dimensions().stream().allMatch(dimension -> dimension.layer() == layer);
        return single
                ? ratio(progress[Arrays.binarySearch(layers, layer)], level)
                : Arrays.stream(progress).map(f -> ratio(f, level)).average().orElse(ratio(1, level));
    }

    private double ratio(double f, double level) {
        double start = first + Math.max(0, level - highest) - Math.max(0, lowest - level);
        double ratio = f > 0 ? first + (level - first) * f : start;
        return Math.min(1, Math.max(0, ratio));
    }
}
