// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dimension;
import java.util.Arrays;
import java.util.List;

/**
 * The shares that tracks lose, all of them rising with one number, the level: the share of the last layer as long as no
 * share leaves [0, 1]. One that would is cut off and the others go on, so that at the highest level everything goes and
 * at the lowest nothing.
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
        // Where every other layer has its extreme share, a first layer that does not follow the level has to.
        lowest = first - first / slowest;
        highest = first + (1 - first) / slowest;
    }

    /** The same share of every track. */
    static LayerRatios uniform(List<TiedDimensions> tracks) {
        return of(Schedule.uniform(), tracks, 0);
    }

    /**
     * Shares by {@code schedule}, its layers being those of {@code tracks}.
     *
     * @param alike the share that all would lose in a uniform schedule
     */
    static LayerRatios of(Schedule schedule, List<TiedDimensions> tracks, double alike) {
        int[] layers = tracks.stream()
                .flatMap(track -> track.dimensions().stream())
                .mapToInt(Dimension::layer)
                .filter(layer -> layer >= 0)
                .distinct()
                .sorted()
                .toArray();
        double[] progress = new double[layers.length];
        Arrays.setAll(progress, index -> schedule.progress(index, layers.length));
        return new LayerRatios(layers, progress, schedule.first(alike));
    }

    /** The level at which nothing goes. */
    double lowest() {
        return lowest - first;
    }

    /** The level at which everything goes. */
    double highest() {
        return highest + 1 - first;
    }

    /** The share of {@code track}; the mean over all layers for dimensions that are not those of one layer. */
    double of(TiedDimensions track, double level) {
        int layer = track.dimensions().get(0).layer();
        boolean single = layer >= 0 && track.dimensions().stream().allMatch(dimension -> dimension.layer() == layer);
        return single
                ? share(progress[Arrays.binarySearch(layers, layer)], level)
                : Arrays.stream(progress).map(f -> share(f, level)).average().orElse(share(1, level));
    }

    private double share(double f, double level) {
        double start = first + Math.max(0, level - highest) - Math.max(0, lowest - level);
        double share = f > 0 ? first + (level - first) * f : start;
        return Math.min(1, Math.max(0, share));
    }
}
