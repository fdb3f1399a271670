// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.LongStream;

/**
 * Rows that each select one of several matrices, as tokens select experts. They are sorted by the matrix, so that each
 * matrix has one product with its own rows, and all other rows cost nothing:
 *
 * <pre>
 *     rows [N, ..] ─ Gather order ─ Split by counts ─ one part for each matrix ─ Concat ─ Gather places ─ [N, ..]
 * </pre>
 */
public final class SelectedRows {
    private final RewriteContext c;
    private final int matrices;
    private final String order;
    private final String places;
    private final String counts;

    /**
     * Sorts rows.
     *
     * @param index {@code [N]} of int64: the matrix of each row, at least 0 and less than {@code matrices}
     */
    SelectedRows(RewriteContext c, String index, int matrices) {
        this.c = c;
        this.matrices = matrices;
        this.order = c.shared("order " + index, () -> sorting(index));
        this.places = c.shared("places " + index, () -> sorting(order));
        this.counts = c.shared("counts " + index, () -> counted(index));
    }

    /**
     * The index that rows were sorted by which {@code op} brings into their first order; empty for any other operator.
     *
     * @param op an operator of a lowered model
     */
    public static Optional<Value> index(Op op) {
        return op.node().is("Gather") ? sorted(op.input(1)).flatMap(SelectedRows::sorted) : Optional.empty();
    }

    /** Whether positions are those of rows in the order of {@code index}. */
    public static boolean isOrder(Value positions, Value index) {
        return sorted(positions).filter(vector -> vector == index).isPresent();
    }

    /** The vector whose elements have these positions in ascending order. */
    private static Optional<Value> sorted(Value positions) {
        Op sort = positions.producer();
        boolean ascending = sort != null
                && sort.node().is("TopK")
                && sort.node().intAttribute("largest", 1) == 0
                && positions == sort.output(1);
        return ascending ? Optional.of(sort.input(0)) : Optional.empty();
    }

    /** The positions of the elements of a vector in ascending order. */
    private String sorting(String vector) {
        Map<String, Attribute> ascending = Map.of("axis", new Attribute.Int(0), "largest", new Attribute.Int(0));
        return c.graph()
                .add("TopK", List.of(vector, c.add("Shape", vector)), ascending, 2)
                .get(1);
    }

    private String counted(String index) {
        String each = c.shared(
                "matrices " + matrices,
                () -> c.graph().ints(LongStream.range(0, matrices).toArray()));
        String chosen = c.cast(c.add("Equal", c.unsqueeze(index, 1), each), DType.INT64);
        Map<String, Attribute> dropped = Map.of("keepdims", new Attribute.Int(0));
        return c.add("ReduceSum", List.of(chosen, c.graph().ints(0)), dropped);
    }

    /** The number of the row at each place of the sorted rows, {@code [N]}. */
    String order() {
        return order;
    }

    /** The rows of each matrix out of rows in sorted order. */
    List<String> parts(String sorted) {
        return c.graph().add("Split", List.of(sorted, counts), Map.of("axis", new Attribute.Int(0)), matrices);
    }

    /** The parts of all matrices as rows in their first order. */
    String joined(List<String> parts) {
        return c.gather(c.concat(0, parts.toArray(String[]::new)), places, 0);
    }
}
