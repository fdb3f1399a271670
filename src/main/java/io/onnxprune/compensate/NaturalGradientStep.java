// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Activation;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.Tensor;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.Newton;
import io.onnxprune.runtime.HostTensor;
import java.util.HashMap;
import java.util.Iterator;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * A natural-gradient step of all weights by K-FAC (arXiv 1503.05671): for each linear layer (A + λI)⁻¹ C (G + μI)⁻¹.
 * Later steps are made conjugate to earlier ones. Each layer is solved as soon as its second moments arrive, and the
 * solution is stored on disk.
 */
final class NaturalGradientStep {
    private final Map<LoweredLinear, PrunedLinear> layers;
    private final Map<LoweredLinear, Tensor> gradients;
    private final int rowLength;
    private final double damping;
    private final WeightStore store;
    private final Log log;
    private final Set<LoweredLinear> waiting;
    private final Map<Tap, HostTensor> sums = new HashMap<>();
    private final Map<LoweredLinear, Tensor> steps = new HashMap<>();

    /**
     * Creates a step that waits for its second moments.
     *
     * @param layers the linear layers to change, by their lowered form
     * @param gradients the gradient of the summed KL divergence of the rows by each weight, in the shape of the
     *     weight
     * @param rowLength tokens in a row
     * @param damping λ and μ as a share of the mean diagonals of A and G
     * @param store holds the solutions
     */
    NaturalGradientStep(
            Map<LoweredLinear, PrunedLinear> layers,
            Map<LoweredLinear, Tensor> gradients,
            int rowLength,
            double damping,
            WeightStore store,
            Log log) {
        this.layers = layers;
        this.gradients = gradients;
        this.rowLength = rowLength;
        this.damping = damping;
        this.store = store;
        this.log = log;
        this.waiting = new LinkedHashSet<>(layers.keySet());
    }

    /** The statistics to measure. Gradients are those of the next token's cross-entropy. */
    Set<Tap> taps() {
        Set<Tap> taps = new LinkedHashSet<>();
        waiting.forEach(linear -> taps.addAll(taps(linear)));
        return taps;
    }

    private static List<Tap> taps(LoweredLinear linear) {
        return List.of(
                new Tap.Positions(linear.input()),
                new Tap.SecondMoment(linear.input()),
                new Tap.GradientSecondMoment(linear.output()));
    }

    /** Takes a measured sum, and solves the layers whose sums are complete. */
    void accept(Tap tap, HostTensor sum) {
        sums.put(tap, sum);
        for (Iterator<LoweredLinear> open = waiting.iterator(); open.hasNext(); ) {
            LoweredLinear linear = open.next();
            if (sums.keySet().containsAll(taps(linear))) {
                solve(linear);
                open.remove();
            }
        }
        sums.keySet().retainAll(taps());
    }

    private void solve(LoweredLinear linear) {
        double positions =
                sums.get(new Tap.Positions(linear.input())).asFloats().get(0);
        if (positions == 0) {
            return;
        }
        String node = layers.get(linear).dense().node();
        // This turns sums into means per token. A row's cross-entropy is the mean over all tokens but the first. Its KL
        // divergence is the mean over all tokens. A, C and G must each be divided by the number of positions.
        double scale = positions * rowLength / Math.pow(rowLength - 1.0, 2);
        try (Matrix a = square(sums.get(new Tap.SecondMoment(linear.input())), linear.input());
                Matrix g = square(sums.get(new Tap.GradientSecondMoment(linear.output())), linear.output());
                Matrix c = gradient(linear);
                Matrix solved = Newton.step(a, c, g, new Damping(damping, (long) positions, node, log));
                Matrix step = Matrix.zeros(c.rows(), c.columns())) {
            WeightStore.add(scale, solved, step);
            steps.put(linear, store.write(step, node));
        }
    }

    private static Matrix square(HostTensor sum, Activation activation) {
        return Matrix.of(sum.asFloats(), activation.width(), activation.width());
    }

    private Matrix gradient(LoweredLinear linear) {
        return WeightStore.read(
                gradients.get(linear), layers.get(linear).dense().axis());
    }

    /** The gradients of the KL divergence, in the shapes of the weights. */
    Map<LoweredLinear, Tensor> gradients() {
        return gradients;
    }

    /** Sets the solutions from a checkpoint. */
    void restore(Map<LoweredLinear, Tensor> solutions) {
        // Entries are added one by one, because the order of a hash map depends on how it grew, and sums follow it.
        solutions.forEach(steps::put);
        waiting.clear();
    }

    /** The solutions, each {@code [n, m]}. Layers that no token reached have none. */
    Map<LoweredLinear, Tensor> steps() {
        return steps;
    }

    /**
     * The search directions: the solutions plus a multiple of the earlier directions (nonlinear conjugate gradient by
     * the rule of Polak and Ribière).
     *
     * @param last the step before
     * @param before the directions of the step before
     */
    Map<LoweredLinear, Tensor> directions(NaturalGradientStep last, Map<LoweredLinear, Tensor> before) {
        double factor = (along(steps) - along(last.steps)) / last.along(last.steps);
        // A factor that is not positive or not a number restarts the conjugate gradient.
        if (!(factor > 0)) {
            return steps;
        }
        Map<LoweredLinear, Tensor> directions = new HashMap<>();
        steps.forEach((linear, step) -> {
            Tensor old = before.get(linear);
            try (Matrix sum = WeightStore.read(step, 0);
                    Matrix past = old == null ? Matrix.zeros(sum.rows(), sum.columns()) : WeightStore.read(old, 0)) {
                WeightStore.add(factor, past, sum);
                directions.put(
                        linear, store.write(sum, layers.get(linear).dense().node()));
            }
        });
        return directions;
    }

    /** The negative slope of the KL divergence along {@code directions}. */
    private double along(Map<LoweredLinear, Tensor> directions) {
        double sum = 0;
        for (Map.Entry<LoweredLinear, Tensor> entry : directions.entrySet()) {
            try (Matrix c = gradient(entry.getKey());
                    Matrix step = WeightStore.read(entry.getValue(), 0)) {
                sum += WeightStore.dot(c, step);
            }
        }
        return sum;
    }
}
