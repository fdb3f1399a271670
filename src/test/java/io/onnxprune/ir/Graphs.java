// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/** Small handmade graphs, for tests of this and other packages. */
public final class Graphs {
    private Graphs() {}

    /** A model of the default operator set, version 18. */
    public static Model model(Graph graph) {
        return new Model(9, Map.of("", 18L), graph, Map.of(), false, Path.of("by-hand.onnx"), new byte[0]);
    }

    public static Graph graph(
            List<ValueInfo> inputs, List<ValueInfo> outputs, Map<String, Tensor> initializers, Node... nodes) {
        return new Graph("main", inputs, outputs, List.of(), initializers, List.of(nodes), new byte[0]);
    }

    /** A node without a name; one output. */
    public static Node node(String op, String output, String... inputs) {
        return Node.of("", op, List.of(inputs), List.of(output), Map.of());
    }

    /** A declared tensor; an extent is a number or a symbol. */
    public static ValueInfo value(String name, DType dtype, Object... extents) {
        List<ValueInfo.Extent> shape = Arrays.stream(extents)
                .map(extent -> extent instanceof String symbol
                        ? new ValueInfo.Extent(-1, symbol)
                        : ValueInfo.Extent.of(((Number) extent).longValue()))
                .toList();
        return new ValueInfo(name, dtype, shape, new byte[0]);
    }

    public static ValueInfo floats(String name, Object... extents) {
        return value(name, DType.FLOAT, extents);
    }

    public static Tensor longs(long... values) {
        return Tensor.ofIndices(DType.INT64, new long[] {values.length}, values);
    }
}
