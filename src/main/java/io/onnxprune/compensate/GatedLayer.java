// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.ir.Tensor;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.Gates;
import io.onnxprune.obs.LeastSquares;
import io.onnxprune.plan.Plan;
import java.util.Arrays;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/**
 * A consumer whose inputs have gates. A closed gate is a row of zeros in the weight, so the graph needs no other nodes, and the
 * gradient of the weight gives the derivatives of all gates.
 *
 * @param layer the consumer
 * @param units for each dimension with gates that it sums over, the input channels of each unit
 * @param damping λ of the second moment, as a share of the mean diagonal; negative if nothing compensates for closed gates
 */
record GatedLayer(PrunedLinear layer, Map<Dimension, List<int[]>> units, double damping) {
    /** The gates of {@code dimensions} at {@code layer}. */
    static GatedLayer of(PrunedLinear layer, List<Dimension> dimensions, double damping) {
        Map<Dimension, List<int[]>> units = new LinkedHashMap<>();
        dimensions.forEach(dimension -> units.put(dimension, layer.units(dimension)));
        return new GatedLayer(layer, units, damping);
    }

    /** The name of the weight in the lowered model. */
    String weight() {
        return layer.lowered().weight();
    }

    boolean compensates() {
        return damping >= 0;
    }

    /** The statistic that solving for the weights needs. */
    Tap moment() {
        return new Tap.SecondMoment(layer.lowered().input());
    }

    /** The channels whose units are all kept, ascending. */
    int[] kept(Plan plan) {
        boolean[] open = open(plan, units.keySet());
        return IntStream.range(0, open.length).filter(i -> open[i]).toArray();
    }

    /** For each channel whether its units of these dimensions are kept. */
    private boolean[] open(Plan plan, Collection<Dimension> dimensions) {
        boolean[] open = new boolean[layer.rows().length];
        Arrays.fill(open, true);
        for (Dimension dimension : dimensions) {
            List<int[]> channels = units.get(dimension);
            int[] kept = plan.kept(dimension);
            for (int unit = 0; unit < channels.size(); unit++) {
                if (Arrays.binarySearch(kept, unit) < 0) {
                    IntStream.of(channels.get(unit)).forEach(channel -> open[channel] = false);
                }
            }
        }
        return open;
    }

    /** The channels of each unit that no gate of another dimension closes: there, its own gate changes nothing. */
    private List<int[]> ownChannels(Dimension dimension, Plan plan) {
        List<Dimension> others =
                units.keySet().stream().filter(one -> !one.equals(dimension)).toList();
        boolean[] open = open(plan, others);
        return units.get(dimension).stream()
                .map(channels -> IntStream.of(channels).filter(i -> open[i]).toArray())
                .toList();
    }

    /**
     * The weight of the layer under a plan, {@code [n, out]}: zero for closed gates.
     *
     * @param statistics has the second moment of the inputs where the others compensate
     */
    Matrix solved(Plan plan, Statistics statistics, Log log) {
        int[] kept = kept(plan);
        try (Matrix w = layer.read()) {
            if (compensates()) {
                try (Matrix a = statistics.inputs(layer.lowered().input())) {
                    return LeastSquares.keep(a, w, kept, damping(statistics, log));
                }
            }
            Matrix result = Matrix.zeros(w.rows(), w.columns());
            double[] row = new double[w.columns()];
            for (int channel : kept) {
                w.getRow(channel, row);
                result.setRow(channel, row);
            }
            return result;
        }
    }

    private Damping damping(Statistics statistics, Log log) {
        return new Damping(damping, statistics.tokens(), layer.node(), log);
    }

    /**
     * Adds the derivatives of a loss by the gates.
     *
     * @param gradient of the loss by the weight under {@code plan}, in the shape of the weight
     * @param solved that weight, {@code [n, out]}
     * @param sums one sum for each unit, by dimension
     */
    void add(Tensor gradient, Matrix solved, Plan plan, Statistics statistics, Map<Dimension, double[]> sums, Log log) {
        try (Matrix c = WeightStore.read(gradient, layer.dense().axis());
                Matrix w = layer.read()) {
            for (Dimension dimension : units.keySet()) {
                List<int[]> all = ownChannels(dimension, plan);
                int[] present = IntStream.range(0, all.size())
                        .filter(unit -> all.get(unit).length > 0)
                        .toArray();
                List<int[]> channels = IntStream.of(present).mapToObj(all::get).toList();
                double[] found = compensates()
                        ? compensated(new Parts(w, solved, c), kept(plan), channels, statistics, log)
                        : Gates.plain(w, c, channels);
                double[] own = sums.get(dimension);
                for (int i = 0; i < present.length; i++) {
                    own[present[i]] += found[i];
                }
            }
        }
    }

    private record Parts(Matrix w, Matrix solved, Matrix gradient) {}

    private double[] compensated(Parts parts, int[] kept, List<int[]> channels, Statistics statistics, Log log) {
        try (Matrix a = statistics.inputs(layer.lowered().input())) {
            Gates.Layer gated = new Gates.Layer(a, parts.w, parts.solved);
            return Gates.compensated(gated, parts.gradient, kept, channels, damping(statistics, log));
        }
    }
}
