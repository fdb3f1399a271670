// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.dims.Dimension;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.Scores;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * The scores s of gates while they are trained. s is the logarithm of importance for each parameter, relative to the unit that is
 * only just pruned: 0 is the threshold, and p = σ(s / τ) is how sure it is that a gate is open.
 */
final class GateScores {
    /** Start values lie within this distance of the threshold, so that a few steps can cross it from anywhere. */
    private static final float SPREAD = 2;

    /** How far below the threshold a unit begins that has no score, because it was pruned before. */
    private static final float UNSCORED = 0.5f;

    /** Shares of the averages of gradients and of their squares that a step keeps. */
    private static final double MOMENTUM = 0.9;

    private static final double SQUARES = 0.99;

    private final Scores initial;
    private final Map<Dimension, Double> sizes;
    private final double threshold;
    private final Map<String, float[]> values = new LinkedHashMap<>();
    private final Map<String, float[]> averages = new LinkedHashMap<>();
    private double squares;
    private int steps;

    /**
     * Scores that begin as {@code initial}.
     *
     * @param sizes by which scores of the units of a dimension are divided in a ranking
     * @param plan what {@code initial} prunes
     */
    GateScores(Scores initial, Map<Dimension, Double> sizes, Plan plan) {
        this.initial = initial;
        this.sizes = sizes;
        this.threshold = threshold(initial, sizes, plan);
        sizes.forEach((dimension, size) -> {
            double[] scores = initial.units().get(dimension.name());
            float[] own = new float[scores.length];
            for (int unit = 0; unit < own.length; unit++) {
                double ratio = scores[unit] / size / threshold;
                own[unit] = ratio > 0 ? (float) Math.max(-SPREAD, Math.min(SPREAD, Math.log(ratio))) : -UNSCORED;
            }
            values.put(dimension.name(), own);
            averages.put(dimension.name(), new float[own.length]);
        });
    }

    /** The largest score for each unit of size of what is pruned, or, without one, the least of what is kept. */
    private static double threshold(Scores initial, Map<Dimension, Double> sizes, Plan plan) {
        double pruned = 0;
        double kept = Double.POSITIVE_INFINITY;
        for (Map.Entry<Dimension, Double> entry : sizes.entrySet()) {
            double[] scores = initial.units().get(entry.getKey().name());
            int[] indices = plan.kept(entry.getKey());
            for (int unit = 0; unit < scores.length; unit++) {
                double score = scores[unit] / entry.getValue();
                if (Arrays.binarySearch(indices, unit) < 0) {
                    pruned = Math.max(pruned, score);
                } else if (score > 0) {
                    kept = Math.min(kept, score);
                }
            }
        }
        double found = pruned > 0 ? pruned : kept;
        return Double.isFinite(found) ? found : 1;
    }

    /** The scores as a ranking takes them, with those of dimensions without gates as they were. */
    Scores scores() {
        Map<String, double[]> all = new HashMap<>(initial.units());
        sizes.forEach((dimension, size) -> {
            float[] own = values.get(dimension.name());
            double[] scores = new double[own.length];
            for (int unit = 0; unit < own.length; unit++) {
                scores[unit] = threshold * size * Math.exp(own[unit]);
            }
            all.put(dimension.name(), scores);
        });
        return new Scores(all, initial.layers(), initial.blocks());
    }

    /**
     * Takes a step. The slope of p goes to s, straight through the choice of what is kept. Only what changes at equal size
     * counts: of the derivatives for each parameter, their mean near the threshold is taken away. One scale holds for all
     * gates, because the gates that change little are not to move as fast as the others.
     *
     * @param derivatives of the loss by each gate
     * @param rate how far s moves where the derivative is as large as the mean of all
     * @param temperature τ
     */
    void step(Map<Dimension, double[]> derivatives, double rate, double temperature) {
        double price = price(derivatives, temperature);
        double sum = 0;
        int count = 0;
        steps++;
        for (Map.Entry<Dimension, double[]> entry : derivatives.entrySet()) {
            String name = entry.getKey().name();
            float[] own = values.get(name);
            float[] average = averages.get(name);
            for (int unit = 0; unit < own.length; unit++) {
                double change =
                        (entry.getValue()[unit] / sizes.get(entry.getKey()) - price) * slope(own[unit], temperature);
                average[unit] = (float) (MOMENTUM * average[unit] + (1 - MOMENTUM) * change);
                sum += change * change;
                count++;
            }
        }
        squares = SQUARES * squares + (1 - SQUARES) * sum / Math.max(1, count);
        double scale = Math.sqrt(squares / (1 - Math.pow(SQUARES, steps)));
        double factor = rate / (1 - Math.pow(MOMENTUM, steps)) / Math.max(scale, Double.MIN_NORMAL);
        values.forEach((name, own) -> {
            float[] average = averages.get(name);
            for (int unit = 0; unit < own.length; unit++) {
                own[unit] -= (float) (factor * average[unit]);
            }
        });
    }

    /** The derivative for each unit of size at the threshold: Σ g·n·p' / Σ n²·p'. */
    private double price(Map<Dimension, double[]> derivatives, double temperature) {
        double above = 0;
        double below = 0;
        for (Map.Entry<Dimension, double[]> entry : derivatives.entrySet()) {
            double size = sizes.get(entry.getKey());
            float[] own = values.get(entry.getKey().name());
            for (int unit = 0; unit < own.length; unit++) {
                double weight = size * slope(own[unit], temperature);
                above += weight * entry.getValue()[unit];
                below += weight * size;
            }
        }
        return below == 0 ? 0 : above / below;
    }

    private static double slope(double value, double temperature) {
        double p = 1 / (1 + Math.exp(-value / temperature));
        return p * (1 - p) / temperature;
    }

    /** Moves all scores so that the last unit that {@code plan} prunes is at the threshold again. */
    void centre(Plan plan) {
        float most = Float.NEGATIVE_INFINITY;
        for (Dimension dimension : sizes.keySet()) {
            float[] own = values.get(dimension.name());
            int[] kept = plan.kept(dimension);
            for (int unit = 0; unit < own.length; unit++) {
                if (Arrays.binarySearch(kept, unit) < 0) {
                    most = Math.max(most, own[unit]);
                }
            }
        }
        if (most > Float.NEGATIVE_INFINITY) {
            for (float[] own : values.values()) {
                for (int unit = 0; unit < own.length; unit++) {
                    own[unit] -= most;
                }
            }
        }
    }

    /** What a stopped run needs to go on. */
    void save(Map<String, String> texts, Map<String, Tensor> tensors) {
        texts.put("squares", Double.toString(squares));
        texts.put("steps", Integer.toString(steps));
        put("score/", values, tensors);
        put("average/", averages, tensors);
    }

    void restore(Map<String, String> texts, Map<String, Tensor> tensors) {
        squares = Double.parseDouble(texts.get("squares"));
        steps = Integer.parseInt(texts.get("steps"));
        values.replaceAll((name, old) -> tensors.get("score/" + name).toFloats());
        averages.replaceAll((name, old) -> tensors.get("average/" + name).toFloats());
    }

    /** A copy of the scores, for {@link #take}. */
    Map<String, float[]> copy() {
        Map<String, float[]> copy = new LinkedHashMap<>();
        values.forEach((name, own) -> copy.put(name, own.clone()));
        return copy;
    }

    /** Takes scores that were copied. */
    void take(Map<String, float[]> copied) {
        copied.forEach((name, own) -> values.put(name, own.clone()));
    }

    static void put(String prefix, Map<String, float[]> of, Map<String, Tensor> tensors) {
        of.forEach((name, values) ->
                tensors.put(prefix + name, Tensor.ofFloats(DType.FLOAT, new long[] {values.length}, values)));
    }

    /** Values of zero for each gate. */
    Map<Dimension, double[]> zeros() {
        Map<Dimension, double[]> zeros = new LinkedHashMap<>();
        sizes.keySet().forEach(dimension -> zeros.put(dimension, new double[dimension.size()]));
        return zeros;
    }
}
