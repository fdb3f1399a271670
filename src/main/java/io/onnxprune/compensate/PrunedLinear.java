// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.dims.Dimension;
import io.onnxprune.ir.Slicing;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.rewrite.Slicer.Slice;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;

/**
 * A linear layer X·W in its three forms: in the dense model, in the pruned model, and in the lowered pruned model that
 * is run.
 *
 * @param lowered the lowered layer, where statistics are measured
 * @param dense the layer in the dense model
 * @param full the dense weight with the updates so far
 * @param weight the weight in the pruned model
 * @param rows for each input channel in the pruned model, the channel in the dense model, ascending
 * @param columns for each output channel in the pruned model, the channel in the dense model, ascending
 */
@SuppressWarnings("ArrayRecordComponent") // never compared
record PrunedLinear(LoweredLinear lowered, LinearLayer dense, Tensor full, Tensor weight, int[] rows, int[] columns) {
    /** The forms of {@code lowered}, which comes from {@code dense}. */
    static PrunedLinear of(LoweredLinear lowered, LinearLayer dense, PrunedState state) {
        Tensor full =
                state.updates().getOrDefault(dense.weight(), dense.weight().constant());
        Slice slice = state.slices().get(lowered.weight());
        int[][] kept = slice == null ? new int[2][] : slice.kept();
        return new PrunedLinear(
                lowered,
                dense,
                full,
                Slicing.slice(full, kept),
                indices(kept[dense.axis()], dense.inputs()),
                indices(kept[1 - dense.axis()], dense.outputs()));
    }

    private static int[] indices(int[] kept, int extent) {
        return kept == null ? IntStream.range(0, extent).toArray() : kept;
    }

    /** The name of the layer in messages. */
    String node() {
        return dense.node();
    }

    /** W in the pruned model, {@code [n, m]}. */
    Matrix read() {
        return WeightStore.read(weight, dense.axis());
    }

    /**
     * W in the pruned model with the bias as one more row: the weights of an input that is always 1.
     *
     * @param bias {@code [m]}; null for none
     * @return {@code [n + 1, m]}, or {@code [n, m]} without a bias
     */
    Matrix read(double[] bias) {
        Matrix w = read();
        if (bias == null) {
            return w;
        }
        try (w) {
            return w.withRow(bias);
        }
    }

    /**
     * The input channels in the pruned model of each unit of a dimension of the dense model; empty for a pruned unit.
     */
    List<int[]> units(Dimension dimension) {
        return units(dimension, dense.units(dimension), rows);
    }

    /**
     * The output channels in the pruned model of each unit of a dimension of the dense model; empty for a pruned unit.
     */
    List<int[]> outputUnits(Dimension dimension) {
        return units(dimension, dense.outputUnits(dimension), columns);
    }

    private static List<int[]> units(Dimension dimension, int[] unitOf, int[] denseChannels) {
        List<IntStream.Builder> channels = new ArrayList<>();
        for (int unit = 0; unit < dimension.size(); unit++) {
            channels.add(IntStream.builder());
        }
        for (int channel = 0; channel < denseChannels.length; channel++) {
            if (unitOf[denseChannels[channel]] >= 0) {
                channels.get(unitOf[denseChannels[channel]]).add(channel);
            }
        }
        return channels.stream().map(builder -> builder.build().toArray()).toList();
    }

    /** Stores {@code w}, {@code [n, m]}, as the weight of the pruned model. */
    Tensor toPruned(Matrix w, WeightStore store) {
        return store.write(w, weight, dense.axis(), node());
    }

    /** Stores {@code w}, {@code [n, m]}, as the weight of the dense model, zero for pruned channels. */
    Tensor toDense(Matrix w, WeightStore store) {
        return store.write(w, new WeightStore.Place(full.dtype(), full.shape(), dense.axis(), rows, columns), node());
    }

    /** Expands a weight of the pruned model, made by {@link #toPruned}, to the dense model. */
    Tensor toDense(Tensor pruned, WeightStore store) {
        if (isDense()) {
            return pruned;
        }
        try (Matrix w = WeightStore.read(pruned, dense.axis())) {
            return toDense(w, store);
        }
    }

    /** Whether the pruned model keeps all of W. */
    boolean isDense() {
        return rows.length == dense.inputs() && columns.length == dense.outputs();
    }
}
