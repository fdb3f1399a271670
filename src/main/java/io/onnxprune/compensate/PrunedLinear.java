// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
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
 * A product X·W of a model that is pruned, in terms of the original.
 *
 * @param consumer the product in the original
 * @param full its whole weight, with the updates so far
 * @param weight its weight in the smaller model
 * @param rows the channel of the original that each channel of X is, ascending
 * @param columns the channel of the original that each channel of the result is, ascending
 */
@SuppressWarnings("ArrayRecordComponent") // never compared
record PrunedLinear(LinearLayer consumer, Tensor full, Tensor weight, int[] rows, int[] columns) {
    /** Where the product that reads the weight {@code name} of the smaller model comes from. */
    static PrunedLinear of(LinearLayer consumer, String name, PrunedState state) {
        Tensor full = state.updates()
                .getOrDefault(consumer.weight(), consumer.weight().constant());
        Slice slice = state.slices().get(name);
        int[][] kept = slice == null ? new int[2][] : slice.kept();
        return new PrunedLinear(
                consumer,
                full,
                Slicing.slice(full, kept),
                indices(kept[consumer.axis()], consumer.inputs()),
                indices(kept[1 - consumer.axis()], consumer.outputs()));
    }

    private static int[] indices(int[] kept, int extent) {
        return kept == null ? IntStream.range(0, extent).toArray() : kept;
    }

    /** W in the smaller model, {@code [n, out]}. */
    Matrix read() {
        return WeightStore.read(weight, consumer.axis());
    }

    /** The same with the product's bias as one more row, the weights of an input that is always 1; without it if that is null. */
    Matrix read(double[] bias) {
        Matrix w = read();
        if (bias == null) {
            return w;
        }
        try (w) {
            return w.withRow(bias);
        }
    }

    /** The channels of X, in the smaller model, of each unit of a dimension of the original; none where a unit is gone. */
    List<int[]> units(Dimension dimension) {
        return units(dimension, consumer.units(dimension), rows);
    }

    /** The same of the result. */
    List<int[]> outputUnits(Dimension dimension) {
        return units(dimension, consumer.outputUnits(dimension), columns);
    }

    private static List<int[]> units(Dimension dimension, int[] unitOf, int[] places) {
        List<IntStream.Builder> channels = new ArrayList<>();
        for (int unit = 0; unit < dimension.size(); unit++) {
            channels.add(IntStream.builder());
        }
        for (int place = 0; place < places.length; place++) {
            if (unitOf[places[place]] >= 0) {
                channels.get(unitOf[places[place]]).add(place);
            }
        }
        return channels.stream().map(found -> found.build().toArray()).toList();
    }

    /** W for the smaller model. */
    Tensor narrow(Matrix w, WeightStore files) {
        return files.write(w, weight, consumer.axis(), consumer.node());
    }

    /** W for the original, zero where the smaller model has nothing. */
    Tensor wide(Matrix w, WeightStore files) {
        return files.write(w, full.dtype(), full.shape(), consumer.axis(), rows, columns, consumer.node());
    }

    /** The same from what {@link #narrow} made; itself where the smaller model has all of W. */
    Tensor wide(Tensor narrow, WeightStore files) {
        if (isWhole()) {
            return narrow;
        }
        try (Matrix w = WeightStore.read(narrow, consumer.axis())) {
            return wide(w, files);
        }
    }

    /** Whether the smaller model has all of W. */
    boolean isWhole() {
        return rows.length == consumer.inputs() && columns.length == consumer.outputs();
    }
}
