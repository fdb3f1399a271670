// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * Products with matrices that an index selects from a stack, as experts in one tensor are. Each matrix of the stack has
 * a product of its own with the rows that select it, so that no matrix is copied for each row:
 *
 * <pre>
 *     MatMul(x [.., M, K], Gather(stack [E, K, N], index [..])):  y[i] = x[i] · stack[index[i]]
 *     MatMul(Gather(stack [E, N, K], index [..]), x [.., K, M]):  y[i] = stack[index[i]] · x[i]
 * </pre>
 */
final class SelectedProducts {
    private final RewriteContext c;
    private final Op selection;
    private final boolean left;
    private final int other;

    private SelectedProducts(RewriteContext c, Op selection, boolean left) {
        this.c = c;
        this.selection = selection;
        this.left = left;
        this.other = left ? 1 : 0;
    }

    static void register(Decompositions.Table table) {
        table.onnx(SelectedProducts::apply, "MatMul");
    }

    /** The product is kept where no matrix is selected, or matrices and rows do not belong together one by one. */
    private static boolean apply(RewriteContext c) {
        for (int side = 0; side < 2; side++) {
            Op producer = c.operand(side).producer();
            if (producer != null && selects(c, producer)) {
                SelectedProducts products = new SelectedProducts(c, producer, side == 0);
                return products.isOneByOne() && products.append();
            }
        }
        return false;
    }

    /** Whether a node selects matrices of a constant stack by their number. */
    private static boolean selects(RewriteContext c, Op op) {
        boolean byComponent = op.node().is("GatherND") && op.node().intAttribute("batch_dims", 0) == 0;
        boolean byNumber = op.node().is("Gather") && op.node().intAttribute("axis", 0) == 0;
        if (!byComponent && !byNumber || !isConstant(op.input(0)) || op.input(1).constant() != null) {
            return false;
        }
        long[] stack = c.shape(op.input(0), 0);
        long[] index = c.shape(op.input(1), 0);
        boolean known = stack != null && index != null && stack.length == 3;
        return known && (byNumber || index[index.length - 1] == 1);
    }

    private static boolean isConstant(Value value) {
        Value current = value;
        while (current.constant() == null) {
            Op before = current.producer();
            if (before == null || !before.node().is("Cast") && !before.node().is("Identity")) {
                return false;
            }
            current = before.input(0);
        }
        return true;
    }

    private boolean isOneByOne() {
        for (int run = 0; run < 2; run++) {
            long[] matrices = c.shape(c.operand(left ? 0 : 1), run);
            long[] rows = c.shape(c.operand(other), run);
            boolean same = matrices != null && rows != null && matrices.length == rows.length;
            for (int axis = 0; same && axis < rows.length - 2; axis++) {
                same = matrices[axis] == rows[axis];
            }
            if (!same) {
                return false;
            }
        }
        return true;
    }

    private boolean append() {
        Value stack = selection.input(0);
        int matrices = (int) c.shape(stack, 0)[0];
        String count = c.graph().index(matrices);
        String number = c.shared("row index " + selection.input(1).name(), () -> {
            String flat = c.reshape(c.cast(selection.input(1).name(), DType.INT64), -1);
            // A negative number counts from the end.
            return c.add("Mod", flat, count);
        });
        SelectedRows rows = new SelectedRows(c, number, matrices);
        String x = left ? swapped(other) : c.in(other);
        String sorted = c.gather(flattened(x), rows.order(), 0);
        List<String> parts = rows.parts(sorted);
        List<String> products = new ArrayList<>();
        for (int matrix = 0; matrix < matrices; matrix++) {
            String own = c.gather(stack.name(), c.graph().index(matrix), 0);
            products.add(c.add("MatMul", parts.get(matrix), left ? c.transpose(own, 1, 0) : own));
        }
        String joined = rows.joined(products);
        if (left) {
            joined = c.transpose(joined, 0, 2, 1);
        }
        c.result(0, restored(joined));
        return true;
    }

    /** The operand with its last two axes swapped. */
    private String swapped(int operand) {
        long[] axes = RewriteContext.axes(0, c.rank(operand));
        axes[axes.length - 2] = axes.length - 1L;
        axes[axes.length - 1] = axes.length - 2L;
        return c.transpose(c.in(operand), axes);
    }

    /** {@code [.., M, K]} as {@code [rows, M, K]}. */
    private String flattened(String x) {
        int rank = c.rank(other);
        if (rank == 3) {
            return x;
        }
        String last = c.add("Shape", List.of(x), Map.of("start", new Attribute.Int(rank - 2)));
        return c.add("Reshape", x, c.concat(0, c.graph().ints(-1), last));
    }

    /** {@code [rows, A, B]} with the leading axes of the operands. */
    private String restored(String y) {
        int rank = c.rank(other);
        if (rank == 3) {
            return y;
        }
        Map<String, Attribute> leading = Map.of("start", new Attribute.Int(0), "end", new Attribute.Int(rank - 2));
        String first = c.add("Shape", List.of(c.in(other)), leading);
        String last = c.add("Shape", List.of(y), Map.of("start", new Attribute.Int(1)));
        return c.add("Reshape", y, c.concat(0, first, last));
    }
}
