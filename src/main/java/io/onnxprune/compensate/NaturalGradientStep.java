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
 * Where weights are to go: for each product (A + λI)⁻¹ C (G + μI)⁻¹, in directions that are conjugate to those before.
 * Products are solved one by one as their second moments arrive, and what is found lies on disk.
 */
final class NaturalGradientStep {
    private final Map<LoweredLinear, PrunedLinear> products;
    private final Map<LoweredLinear, Tensor> slopes;
    private final int length;
    private final double damping;
    private final WeightStore store;
    private final Log log;
    private final Set<LoweredLinear> waiting;
    private final Map<Tap, HostTensor> sums = new HashMap<>();
    private final Map<LoweredLinear, Tensor> steps = new HashMap<>();

    /**
     * A descent that waits for its second moments.
     *
     * @param slopes the gradient of the sum over rows of their mean divergence by each weight, in the weight's shape
     * @param length tokens in a row
     * @param damping λ and μ as a share of the mean diagonals
     */
    NaturalGradientStep(
            Map<LoweredLinear, PrunedLinear> products,
            Map<LoweredLinear, Tensor> slopes,
            int length,
            double damping,
            WeightStore store,
            Log log) {
        this.products = products;
        this.slopes = slopes;
        this.length = length;
        this.damping = damping;
        this.store = store;
        this.log = log;
        this.waiting = new LinkedHashSet<>(products.keySet());
    }

    /** What is to be measured: gradients are those of the next token's cross-entropy. */
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

    /** Takes what was measured. */
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
        String node = products.get(linear).dense().node();
        // From sums to means per token: a row's cross-entropy is the mean over all tokens but the first, its divergence
        // that
        // over all, and A, C and G are each to be divided by the number of positions.
        double scale = positions * length / Math.pow(length - 1.0, 2);
        try (Matrix a = square(sums.get(new Tap.SecondMoment(linear.input())), linear.input());
                Matrix g = square(sums.get(new Tap.GradientSecondMoment(linear.output())), linear.output());
                Matrix c = slope(linear);
                Matrix solved = Newton.step(a, c, g, new Damping(damping, (long) positions, node, log));
                Matrix step = Matrix.zeros(c.rows(), c.columns())) {
            WeightStore.add(scale, solved, step);
            steps.put(linear, store.write(step, node));
        }
    }

    private static Matrix square(HostTensor sum, Activation activation) {
        return Matrix.of(sum.asFloats(), activation.width(), activation.width());
    }

    private Matrix slope(LoweredLinear linear) {
        return WeightStore.read(slopes.get(linear), products.get(linear).dense().axis());
    }

    /** The gradients that the solutions belong to, in the weights' shapes. */
    Map<LoweredLinear, Tensor> slopes() {
        return slopes;
    }

    /** Takes solutions that were found before. */
    void restore(Map<LoweredLinear, Tensor> solutions) {
        // One by one: the order of a hash map follows from how it grew, and sums follow that order.
        solutions.forEach(steps::put);
        waiting.clear();
    }

    /** The solutions, {@code [n, out]}; none for products that no token reached. */
    Map<LoweredLinear, Tensor> steps() {
        return steps;
    }

    /**
     * The directions in which to go: the solutions, with a share of the directions before that makes them conjugate to those
     * as far as the loss is quadratic (Polak and Ribière's rule).
     *
     * @param last the descent before
     * @param before its directions
     */
    Map<LoweredLinear, Tensor> directions(NaturalGradientStep last, Map<LoweredLinear, Tensor> before) {
        double share = (along(steps) - along(last.steps)) / last.along(last.steps);
        // What is not positive, or no number, begins anew.
        if (!(share > 0)) {
            return steps;
        }
        Map<LoweredLinear, Tensor> directions = new HashMap<>();
        steps.forEach((linear, step) -> {
            Tensor old = before.get(linear);
            try (Matrix sum = WeightStore.read(step, 0);
                    Matrix past = old == null ? Matrix.zeros(sum.rows(), sum.columns()) : WeightStore.read(old, 0)) {
                WeightStore.add(share, past, sum);
                directions.put(
                        linear, store.write(sum, products.get(linear).dense().node()));
            }
        });
        return directions;
    }

    /** How fast the divergence falls that way. */
    private double along(Map<LoweredLinear, Tensor> way) {
        double sum = 0;
        for (Map.Entry<LoweredLinear, Tensor> entry : way.entrySet()) {
            try (Matrix c = slope(entry.getKey());
                    Matrix step = WeightStore.read(entry.getValue(), 0)) {
                sum += WeightStore.dot(c, step);
            }
        }
        return sum;
    }
}
