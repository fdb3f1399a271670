// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.RuntimeTensor;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The rows of a run in batches, with the sideValues values that segments use beside the stream: inputs of the model, and
 * values that earlier segments computed from them.
 */
final class Batches {
    private final DataFlow flow;
    private final ModelInterface graph;
    private final List<long[]> rows;
    private final List<int[]> batches;
    /** Values beside the stream. Values that do not depend on the tokens are stored once for each batch size. */
    private final Map<String, Map<Integer, RuntimeTensor>> sideValues = new HashMap<>();

    /** Creates batches of rows of equal length. {@code batches} holds the row numbers of each batch. */
    Batches(DataFlow flow, ModelInterface graph, List<long[]> rows, List<int[]> batches) {
        this.flow = flow;
        this.graph = graph;
        this.rows = rows;
        this.batches = batches;
    }

    int count() {
        return batches.size();
    }

    /** The row numbers of a batch. */
    int[] rows(int batch) {
        return batches.get(batch);
    }

    /** The number of rows of a batch. */
    int size(int batch) {
        return batches.get(batch).length;
    }

    long tokens(int batch) {
        return (long) size(batch) * rows.get(0).length;
    }

    /** The number of tokens of all batches. */
    long tokens() {
        return (long) rows.size() * rows.get(0).length;
    }

    /** The tokens of a row. */
    long[] row(int row) {
        return rows.get(row);
    }

    /** The number of rows of all batches. */
    int rowCount() {
        return rows.size();
    }

    /** The model inputs and sideValues values that a segment uses. */
    Map<String, RuntimeTensor> feeds(Segment segment, int batch) {
        Map<String, RuntimeTensor> feeds = new LinkedHashMap<>();
        Map<String, HostTensor> all = inputs(batch);
        segment.given().forEach(value -> feeds.put(value.name(), all.get(value.name())));
        for (Value value : segment.taken()) {
            feeds.put(value.name(), sideValues.get(value.name()).get(key(value, batch)));
        }
        return feeds;
    }

    /** The inputs of the model for entire rows, without past keys and values. */
    Map<String, HostTensor> inputs(int batch) {
        return graph.wholeRows(rowsOf(batch));
    }

    /** The tokens of a batch, int64 [batch, length]; zeros where they are not known. */
    HostTensor tokenIds(int batch, boolean known) {
        long[][] rowsOf = rowsOf(batch);
        long[] shape = {rowsOf.length, rowsOf[0].length};
        return known
                ? HostTensor.ofInt64(
                        shape,
                        Arrays.stream(rowsOf).flatMapToLong(Arrays::stream).toArray())
                : HostTensor.zeros(DType.INT64, shape);
    }

    private long[][] rowsOf(int batch) {
        return Arrays.stream(rows(batch)).mapToObj(rows::get).toArray(long[][]::new);
    }

    /** The names of those sideValues values that are not stored yet. */
    Set<String> missing(Set<Value> values, int batch) {
        Set<String> missing = new LinkedHashSet<>();
        for (Value value : values) {
            if (!sideValues.getOrDefault(value.name(), Map.of()).containsKey(key(value, batch))) {
                missing.add(value.name());
            }
        }
        return missing;
    }

    /** Stores the sideValues values for later segments, as far as they were computed. */
    void keep(Set<Value> values, int batch, Outputs outputs) {
        for (Value value : values) {
            if (outputs.has(value.name())) {
                sideValues
                        .computeIfAbsent(value.name(), name -> new HashMap<>())
                        .put(key(value, batch), outputs.keep(value.name()));
            }
        }
    }

    /** Gives the memory of all values beside the stream back. */
    void release() {
        sideValues.values().forEach(each -> each.values().forEach(RuntimeTensor::release));
        sideValues.clear();
    }

    private int key(Value value, int batch) {
        return flow.dependsOnTokens(value) ? batch : -size(batch);
    }
}
