// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.dims.Dimension;
import io.onnxprune.obs.LayerProblem;
import io.onnxprune.option.Named;
import java.util.Arrays;
import java.util.Comparator;
import java.util.List;
import java.util.stream.IntStream;

/**
 * Weight magnitude times input norm: it prunes the units with the smallest sums of mean_j |W_ij| · √(mean of x_i²) over
 * their channels i (the structured form of Wanda, arXiv 2306.11695, that FLAP calls Wanda-sp).
 */
@Named(value = "wanda", summary = "weights times the size of inputs")
public record WandaSelection() implements Selection {
    @Override
    public int[] choose(Dimension dimension, List<LayerProblem> consumers, int count, Measured measured) {
        double[] scores = new double[consumers.get(0).units().size()];
        for (LayerProblem consumer : consumers) {
            double[] row = new double[consumer.w().columns()];
            for (int unit = 0; unit < scores.length; unit++) {
                for (int channel : consumer.units().get(unit)) {
                    consumer.w().getRow(channel, row);
                    double norm = Math.sqrt(
                            Math.max(0, consumer.a().get(channel, channel)) / Math.max(1, measured.positions()));
                    scores[unit] += norm * Arrays.stream(row).map(Math::abs).sum() / row.length;
                }
            }
        }
        return IntStream.range(0, scores.length)
                .boxed()
                .sorted(Comparator.comparingDouble(unit -> scores[unit]))
                .limit(count)
                .mapToInt(Integer::intValue)
                .toArray();
    }
}
