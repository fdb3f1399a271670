// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Activation;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.ir.Tensor;

/** A linear layer that may become sparse, with its current weight in the pruned model. */
final class SparseLayer {
    /**
     * Inputs of layers.
     *
     * @param centred whether they count about their mean: those of layers whose bias takes the mean of what the weights lose
     */
    record Inputs(Activation activation, boolean centred) {
        /** {@code [n, n]}; the caller closes it. */
        Matrix moment(Statistics statistics) {
            Matrix moment = statistics.inputs(activation);
            if (!centred) {
                return moment;
            }
            try (moment) {
                return moment.centred(total(statistics), count(statistics));
            }
        }

        double[] total(Statistics statistics) {
            return Statistics.doubles(statistics.sum(new Tap.Total(activation)));
        }

        double count(Statistics statistics) {
            return statistics.sum(new Tap.Positions(activation)).asFloats().get(0);
        }
    }

    final PrunedLinear layer;
    final boolean hasBias;
    Tensor weight;
    boolean changed;

    SparseLayer(PrunedLinear layer, boolean hasBias, boolean changed) {
        this.layer = layer;
        this.hasBias = hasBias;
        this.weight = layer.weight();
        this.changed = changed;
    }

    Inputs input() {
        return new Inputs(layer.lowered().input(), hasBias);
    }

    Activation output() {
        return layer.lowered().output();
    }

    String node() {
        return layer.node();
    }

    int inputs() {
        return layer.rows().length;
    }

    /** {@code [n, out]}. */
    Matrix read() {
        return WeightStore.read(weight, layer.dense().axis());
    }

    /** {@code [out, n]}. */
    Matrix readByOutput() {
        return WeightStore.read(weight, 1 - layer.dense().axis());
    }
}
