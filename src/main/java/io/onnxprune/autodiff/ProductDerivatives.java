// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/**
 * Derivatives of matrix products: for Y = A·B, dA = G·Bᵀ and dB = Aᵀ·G, summed over batch axes on which an operand was
 * broadcast.
 *
 * <p>When the right operand is a matrix (a weight), each gradient is one Gemm over all rows of the batch, which
 * transposes while it packs. An operand that is a transposed value is not transposed back: its source is used, and
 * gets the gradient Gᵀ·A directly.
 */
final class ProductDerivatives {
    private ProductDerivatives() {}

    static void register(Derivatives.Table table) {
        table.add(ProductDerivatives::matMul, "MatMul");
        table.add(ProductDerivatives::gemm, "Gemm");
        table.add(EinsumDerivative::apply, "Einsum");
    }

    private static void matMul(Derivation d) {
        int left = d.graph().rank(d.input(0));
        int right = d.graph().rank(d.input(1));
        if (left == 1 || right == 1) {
            vector(d, left == 1, right == 1);
        } else if (right == 2) {
            rows(d, left);
        } else {
            batched(d);
        }
    }

    /** A[.., M, K]·B[K, N]; all leading axes of A are rows. */
    private static void rows(Derivation d, int rank) {
        BackwardGraph graph = d.graph();
        String incoming = d.incomingFull(0);
        String g = flattened(graph, incoming, rank);
        Value source = transposedSource(d, 1);
        if (d.wants(0)) {
            String weight = source == null ? d.in(1) : graph.operand(source);
            String product = gemm(graph, g, weight, false, source == null);
            d.give(0, rank == 2 ? product : unflattened(d, product, incoming, rank));
        }
        if (d.wants(1)) {
            String a = flattened(graph, d.in(0), rank);
            if (source == null) {
                d.give(1, gemm(graph, a, g, true, false));
            } else {
                d.giveToSource(1, source, gemm(graph, g, a, true, false));
            }
        }
    }

    private static String flattened(BackwardGraph graph, String name, int rank) {
        return rank == 2 ? name : graph.flattened(name, rank);
    }

    /**
     * Reshapes [rows, K] to the shape of A. The leading extents are read from the result, so that A need not be kept.
     */
    private static String unflattened(Derivation d, String name, String incoming, int rank) {
        BackwardGraph graph = d.graph();
        Value a = d.input(0);
        long width = graph.extent(a, rank - 1);
        String shape = width < 0
                ? graph.shape(a)
                : graph.add(
                        "Concat",
                        BackwardGraph.integer("axis", 0),
                        graph.add("Shape", BackwardGraph.range(0, rank - 1), incoming),
                        graph.ints(width));
        return graph.reshaped(name, shape);
    }

    private static String gemm(BackwardGraph graph, String a, String b, boolean transA, boolean transB) {
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        if (transA) {
            attributes.put("transA", new Attribute.Int(1));
        }
        if (transB) {
            attributes.put("transB", new Attribute.Int(1));
        }
        return graph.add("Gemm", attributes, a, b);
    }

    /**
     * The value that an operand is the matrix transpose of; null when it is not one or its own gradient is requested.
     */
    private static Value transposedSource(Derivation d, int input) {
        Op producer = d.producer(input);
        if (producer == null
                || !producer.node().is("Transpose")
                || d.isRequested(d.input(input))
                || !isMatrixTranspose(d.graph(), producer)) {
            return null;
        }
        return producer.input(0);
    }

    private static boolean isMatrixTranspose(BackwardGraph graph, Op transpose) {
        int rank = graph.rank(transpose.input(0));
        List<Long> permutation = LayoutDerivatives.permutation(transpose.node(), rank);
        return permutation.equals(matrixTranspose(rank));
    }

    /** The permutation that swaps the last two axes. */
    private static List<Long> matrixTranspose(int rank) {
        List<Long> axes = new ArrayList<>();
        for (long axis = 0; axis < rank; axis++) {
            axes.add(axis);
        }
        axes.set(rank - 2, rank - 1L);
        axes.set(rank - 1, rank - 2L);
        return axes;
    }

    private static String transposed(BackwardGraph graph, String name, int rank) {
        return graph.add("Transpose", BackwardGraph.integers("perm", matrixTranspose(rank)), name);
    }

    private static void batched(Derivation d) {
        BackwardGraph graph = d.graph();
        String g = d.incomingFull(0);
        int rank = graph.rank(d.output());
        Value leftSource = transposedSource(d, 0);
        Value rightSource = transposedSource(d, 1);
        if (d.wants(0)) {
            if (leftSource != null) {
                String product = graph.add("MatMul", d.in(1), transposed(graph, g, rank));
                d.giveToSource(0, leftSource, sumBatch(d, product, d.input(0)));
            } else {
                String b = rightSource == null
                        ? transposed(graph, d.in(1), graph.rank(d.input(1)))
                        : graph.operand(rightSource);
                d.give(0, sumBatch(d, graph.add("MatMul", g, b), d.input(0)));
            }
        }
        if (d.wants(1)) {
            if (rightSource != null) {
                String product = graph.add("MatMul", transposed(graph, g, rank), d.in(0));
                d.giveToSource(1, rightSource, sumBatch(d, product, d.input(1)));
            } else {
                String a = leftSource == null
                        ? transposed(graph, d.in(0), graph.rank(d.input(0)))
                        : graph.operand(leftSource);
                d.give(1, sumBatch(d, graph.add("MatMul", a, g), d.input(1)));
            }
        }
    }

    /** Sums a product over the batch axes on which an operand was broadcast; matrix axes are kept. */
    private static String sumBatch(Derivation d, String product, Value operand) {
        BackwardGraph graph = d.graph();
        int rank = graph.rank(d.output());
        int shift = rank - graph.rank(operand);
        List<Long> absent = new ArrayList<>();
        List<Long> ones = new ArrayList<>();
        for (int axis = 0; axis < rank - 2; axis++) {
            if (axis < shift) {
                absent.add((long) axis);
            } else if (graph.isOne(operand, axis - shift)
                    && (operand.constant() != null || !graph.isOne(d.output(), axis))) {
                ones.add((long) axis);
            }
        }
        String name = product;
        if (!ones.isEmpty()) {
            name = graph.add("ReduceSum", name, graph.ints(ones));
        }
        if (!absent.isEmpty()) {
            name = graph.add("ReduceSum", BackwardGraph.integer("keepdims", 0), name, graph.ints(absent));
        }
        return name;
    }

    /** A product with a vector, which is treated as a matrix of one row or column. */
    private static void vector(Derivation d, boolean left, boolean right) {
        BackwardGraph graph = d.graph();
        String a = left ? graph.add("Unsqueeze", d.in(0), graph.ints(0)) : d.in(0);
        String b = right ? graph.add("Unsqueeze", d.in(1), graph.ints(-1)) : d.in(1);
        int leftRank = left ? 2 : graph.rank(d.input(0));
        int rightRank = right ? 2 : graph.rank(d.input(1));
        String g = d.incomingFull(0);
        if (right) {
            g = graph.add("Unsqueeze", g, graph.ints(-1));
        }
        if (left) {
            g = graph.add("Unsqueeze", g, graph.ints(-2));
        }
        int rank = Math.max(leftRank, rightRank);
        if (d.wants(0)) {
            String product = graph.add("MatMul", g, transposed(graph, b, rightRank));
            d.give(0, left ? sumAllBut(graph, product, rank, rank - 1) : product);
        }
        if (d.wants(1)) {
            String product = graph.add("MatMul", transposed(graph, a, leftRank), g);
            d.give(1, right ? sumAllBut(graph, product, rank, rank - 2) : product);
        }
    }

    private static String sumAllBut(BackwardGraph graph, String name, int rank, int kept) {
        Set<Long> axes = new TreeSet<>();
        for (long axis = 0; axis < rank; axis++) {
            if (axis != kept) {
                axes.add(axis);
            }
        }
        return graph.add("ReduceSum", BackwardGraph.integer("keepdims", 0), name, graph.ints(List.copyOf(axes)));
    }

    /** Y = α·A'·B' + β·C, where A' and B' may be transposed. */
    private static void gemm(Derivation d) {
        BackwardGraph graph = d.graph();
        boolean transA = d.node().intAttribute("transA", 0) != 0;
        boolean transB = d.node().intAttribute("transB", 0) != 0;
        float alpha = d.node().floatAttribute("alpha", 1);
        float beta = d.node().floatAttribute("beta", 1);
        if (d.wants(0) || d.wants(1)) {
            String g = d.incomingFull(0);
            if (d.wants(0)) {
                d.give(
                        0,
                        transA
                                ? scaledGemm(graph, alpha, d.in(1), g, transB, true)
                                : scaledGemm(graph, alpha, g, d.in(1), false, !transB));
            }
            if (d.wants(1)) {
                d.give(
                        1,
                        transB
                                ? scaledGemm(graph, alpha, g, d.in(0), true, transA)
                                : scaledGemm(graph, alpha, d.in(0), g, !transA, false));
            }
        }
        if (d.wants(2)) {
            Gradient summed = graph.sumToShape(d.incoming(0), d.output(), d.input(2));
            d.give(2, beta == 1 ? summed : summed.renamed(UnaryDerivatives.scaled(d, summed.name(), beta)));
        }
    }

    private static String scaledGemm(
            BackwardGraph graph, float alpha, String a, String b, boolean transA, boolean transB) {
        Map<String, Attribute> attributes = new LinkedHashMap<>();
        attributes.put("transA", new Attribute.Int(transA ? 1 : 0));
        attributes.put("transB", new Attribute.Int(transB ? 1 : 0));
        if (alpha != 1) {
            attributes.put("alpha", new Attribute.Real(alpha));
        }
        return graph.add("Gemm", attributes, a, b);
    }
}
