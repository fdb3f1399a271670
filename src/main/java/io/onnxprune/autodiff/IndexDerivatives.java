// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * Derivatives of operators that select or place elements by index. Gradients of repeatedly selected elements are added.
 */
final class IndexDerivatives {
    private static final Map<String, Attribute> ADD = Map.of("reduction", new Attribute.Text("add"));

    private IndexDerivatives() {}

    static void register(Derivatives.Table table) {
        table.add(IndexDerivatives::gather, "Gather");
        table.add(IndexDerivatives::gatherElements, "GatherElements");
        table.add(IndexDerivatives::gatherNd, "GatherND");
        table.add(IndexDerivatives::scatterElements, "ScatterElements");
        table.add(IndexDerivatives::scatterNd, "ScatterND");
        table.add(IndexDerivatives::triangle, "Trilu");
        table.add(IndexDerivatives::topK, "TopK");
    }

    private static String zeros(Derivation d, Value like) {
        return d.graph().filled(like, d.graph().shape(like), 0);
    }

    private static void gather(Derivation d) {
        BackwardGraph graph = d.graph();
        Value data = d.input(0);
        int rank = graph.rank(data);
        int axis = Derivation.axis(d.node().intAttribute("axis", 0), rank);
        String g = d.incomingFull(0);
        long[] indices = graph.integers(d.input(1));
        long extent = graph.extent(data, axis);
        if (indices != null && indices.length == 1 && extent >= 0 && graph.rank(d.input(1)) <= 1) {
            String piece = graph.rank(d.input(1)) == 1 ? g : graph.add("Unsqueeze", g, graph.ints(axis));
            long index = indices[0] < 0 ? indices[0] + extent : indices[0];
            d.give(0, new Part(piece, axis, index, index + 1, extent));
            return;
        }
        String at = graph.add("Unsqueeze", d.input(1).name(), graph.ints(-1));
        if (axis == 0) {
            d.give(0, graph.add("ScatterND", ADD, zeros(d, data), at, g));
            return;
        }
        // The indexed axis comes first, and with it the axes of the indices.
        int indexRank = graph.rank(d.input(1));
        List<Long> front = new ArrayList<>();
        List<Long> back = new ArrayList<>();
        for (long i = 0; i < indexRank; i++) {
            front.add(axis + i);
        }
        for (long i = 0; i < rank - 1; i++) {
            front.add(i < axis ? i : i + indexRank);
        }
        for (long i = 0; i < rank; i++) {
            back.add(i < axis ? i + 1 : i == axis ? 0 : i);
        }
        String updates = graph.add("Transpose", BackwardGraph.integers("perm", front), g);
        List<String> extents = new ArrayList<>(List.of(graph.extentAtRun(data, axis)));
        for (int i = 0; i < rank; i++) {
            if (i != axis) {
                extents.add(graph.extentAtRun(data, i));
            }
        }
        String shape = graph.add("Concat", BackwardGraph.integer("axis", 0), extents.toArray(new String[0]));
        String sum = graph.add("ScatterND", ADD, graph.filled(data, shape, 0), at, updates);
        d.give(0, graph.add("Transpose", BackwardGraph.integers("perm", back), sum));
    }

    private static Map<String, Attribute> axis(Derivation d, long otherwise) {
        return BackwardGraph.integer("axis", d.node().intAttribute("axis", otherwise));
    }

    private static String scattered(Derivation d, long axis, String indices, String g) {
        Map<String, Attribute> attributes =
                Map.of("axis", new Attribute.Int(axis), "reduction", new Attribute.Text("add"));
        return d.graph().add("ScatterElements", attributes, zeros(d, d.input(0)), indices, g);
    }

    private static void gatherElements(Derivation d) {
        d.give(0, scattered(d, d.node().intAttribute("axis", 0), d.input(1).name(), d.incomingFull(0)));
    }

    /** Batch axes are turned into index components. */
    private static void gatherNd(Derivation d) {
        BackwardGraph graph = d.graph();
        int batch = (int) d.node().intAttribute("batch_dims", 0);
        String indices = d.input(1).name();
        int indexRank = graph.rank(d.input(1));
        for (int axis = batch - 1; axis >= 0; axis--) {
            // A count along the batch axis, [1, .., n, .., 1], expanded to the shape of the indices with one component.
            String count = graph.add(
                    "Range",
                    graph.index(0),
                    graph.add("Squeeze", graph.add("Shape", BackwardGraph.range(axis, axis + 1L), indices)),
                    graph.index(1));
            List<Long> others = new ArrayList<>();
            for (long i = 0; i < indexRank; i++) {
                if (i != axis) {
                    others.add(i);
                }
            }
            String column = graph.add("Unsqueeze", count, graph.ints(others));
            String leading = graph.add("Shape", BackwardGraph.range(0, indexRank - 1L), indices);
            String shape = graph.add("Concat", BackwardGraph.integer("axis", 0), leading, graph.ints(1));
            indices =
                    graph.add("Concat", BackwardGraph.integer("axis", -1), graph.add("Expand", column, shape), indices);
        }
        d.give(0, graph.add("ScatterND", ADD, zeros(d, d.input(0)), indices, d.incomingFull(0)));
    }

    /** Whether updates are added to the data; otherwise they replace it. */
    private static boolean adds(Derivation d) {
        String reduction = d.node().textAttribute("reduction", "none");
        if (!reduction.equals("none") && !reduction.equals("add")) {
            throw d.unsupported("its reduction " + reduction + " has no derivative");
        }
        return reduction.equals("add");
    }

    private static void scatterElements(Derivation d) {
        BackwardGraph graph = d.graph();
        String g = d.incomingFull(0);
        boolean adds = adds(d);
        if (d.wants(0)) {
            String none = zeros(d, d.input(2));
            d.give(
                    0,
                    adds
                            ? g
                            : graph.add(
                                    "ScatterElements", axis(d, 0), g, d.input(1).name(), none));
        }
        if (d.wants(2)) {
            d.give(2, graph.add("GatherElements", axis(d, 0), g, d.input(1).name()));
        }
    }

    private static void scatterNd(Derivation d) {
        BackwardGraph graph = d.graph();
        String g = d.incomingFull(0);
        String indices = d.input(1).name();
        boolean adds = adds(d);
        if (d.wants(0)) {
            d.give(0, adds ? g : graph.add("ScatterND", g, indices, zeros(d, d.input(2))));
        }
        if (d.wants(2)) {
            d.give(2, graph.add("GatherND", g, indices));
        }
    }

    private static void triangle(Derivation d) {
        Map<String, Attribute> attributes = d.node().attributes();
        String g = d.incomingFull(0);
        Value diagonal = d.input(1);
        d.give(
                0,
                diagonal == null
                        ? d.graph().add("Trilu", attributes, g)
                        : d.graph().add("Trilu", attributes, g, diagonal.name()));
    }

    private static void topK(Derivation d) {
        Value indices = d.op().output(1);
        if (indices == null) {
            throw d.unsupported("its indices are left out");
        }
        d.give(0, scattered(d, d.node().intAttribute("axis", -1), indices.name(), d.incomingFull(0)));
    }
}
