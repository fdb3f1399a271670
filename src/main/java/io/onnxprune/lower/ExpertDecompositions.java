// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;

/**
 * Decompositions of mixtures of experts. Each expert is computed on the tokens that chose it. The choice is constant for
 * gradients; they run through the weights of the chosen experts:
 *
 * <pre>
 *     y[t] = Σ over chosen e of gate[t, e] · (W2[e] · act(W1[e] · x[t] + b1[e]) + b2[e])
 * </pre>
 *
 * <p>The gate is multiplied in before W2, so the input of W2 has each token with the weight that the result has.
 */
final class ExpertDecompositions {
    private static final int INPUT = 0;
    private static final int ROUTER = 1;
    private static final int AGGREGATION = 14;

    private final RewriteContext c;
    private final boolean quantised;
    private final long hidden;
    private final int experts;
    private final long chosen;
    private final Stack first;
    private final Stack second;

    /**
     * The matrices of one linear layer of all experts.
     *
     * @param weights position of the operand {@code [E, outputs, inputs]}
     * @param bias position of the biases {@code [E, outputs]}
     * @param scales position of the scales; -1 without quantisation
     * @param zeros position of the zero points; -1 without quantisation
     */
    private record Stack(int weights, int bias, int scales, int zeros) {}

    private ExpertDecompositions(RewriteContext c, boolean quantised, Stack first, Stack second) {
        this.c = c;
        this.quantised = quantised;
        this.hidden = c.extent(INPUT, -1);
        this.experts = (int) c.extent(first.weights, 0);
        this.chosen = c.node().intAttribute("k", 1);
        this.first = first;
        this.second = second;
    }

    static void register(Decompositions.Table table) {
        table.contrib(ExpertDecompositions::moe, "MoE");
        table.contrib(ExpertDecompositions::quantisedMoe, "QMoE");
    }

    /**
     * com.microsoft.MoE (x, router logits, W1, b1, W2, b2). Gates are the largest k elements of the softmax,
     * normalised on request. A third matrix, SwiGLU that is not interleaved, and the sparse mixer are not decomposed:
     * ONNX Runtime has no CPU kernel for them.
     */
    private static boolean moe(RewriteContext c) {
        boolean plain = !c.has(6) && !c.has(7);
        return plain && new ExpertDecompositions(c, false, new Stack(2, 3, -1, -1), new Stack(4, 5, -1, -1)).append();
    }

    /**
     * com.microsoft.QMoE (x, router logits, W1, scales, b1, W2, scales, b2, -, -, -, zero points of W1 and W2, -,
     * aggregation weights). Matrices hold integers of {@code expert_weight_bits} bits, lowest first, with a scale for
     * each row or for each block of a row. The largest k logits choose. Gates are their softmax, or the aggregation
     * weights of the chosen experts as far as they are positive.
     */
    private static boolean quantisedMoe(RewriteContext c) {
        boolean plain = !c.has(8)
                && !c.has(10)
                && c.node().textAttribute("quant_type", "int").equals("int")
                && c.dtype(2) == DType.UINT8
                && c.node().intAttribute("weights_prepacked", 0) <= 0;
        return plain && new ExpertDecompositions(c, true, new Stack(2, 4, 3, 11), new Stack(5, 7, 6, 12)).append();
    }

    private boolean append() {
        long inner = width(second);
        long outputs = c.extent(first.weights, 1);
        boolean gated = activation().equals("swiglu");
        boolean known = List.of("relu", "gelu", "silu", "identity", "swiglu").contains(activation());
        boolean fits = width(first) == hidden
                && c.extent(second.weights, 1) == hidden
                && outputs == (gated ? 2 * inner : inner)
                && c.node().intAttribute("swiglu_fusion", 0) == (gated ? 1 : 0);
        if (!known || !fits || c.node().intAttribute("use_sparse_mixer", 0) != 0) {
            return false;
        }
        List<String> routed = routes();
        SelectedRows rows = new SelectedRows(c, c.reshape(routed.get(1), -1), experts);
        String token = c.add("Div", rows.order(), c.graph().index(chosen));
        List<String> inputs = rows.parts(c.gather(c.reshape(c.in(INPUT), -1, hidden), token, 0));
        List<String> gates = rows.parts(c.gather(c.reshape(routed.get(0), -1, 1), rows.order(), 0));
        List<String> results = new ArrayList<>();
        for (int expert = 0; expert < experts; expert++) {
            String sum = c.plus(product(inputs.get(expert), first, expert), bias(first, expert));
            String active = c.add("Mul", activated(sum, inner), gates.get(expert));
            String bias = bias(second, expert);
            String weighted = bias.isEmpty() ? "" : c.add("Mul", gates.get(expert), bias);
            results.add(c.plus(product(active, second, expert), weighted));
        }
        String each = c.reshape(rows.joined(results), -1, chosen, hidden);
        Map<String, Attribute> dropped = Map.of("keepdims", new Attribute.Int(0));
        String sum = c.add("ReduceSum", List.of(each, c.graph().ints(1)), dropped);
        c.result(0, c.rank(INPUT) == 2 ? sum : c.add("Reshape", sum, c.add("Shape", c.in(INPUT))));
        return true;
    }

    private String activation() {
        return c.node().textAttribute("activation_type", "relu");
    }

    /** The number of inputs of a linear layer. */
    private long width(Stack stack) {
        return c.extent(stack.weights, 2) * (quantised ? 8 / bits() : 1);
    }

    private long bits() {
        return c.node().intAttribute("expert_weight_bits", 4);
    }

    /** The gates and the numbers of the chosen experts, {@code [tokens, k]}. */
    private List<String> routes() {
        boolean normalised = c.node().intAttribute("normalize_routing_weights", 0) != 0;
        Map<String, Attribute> last = Map.of("axis", new Attribute.Int(-1));
        String scores = quantised ? c.in(ROUTER) : c.add("Softmax", List.of(c.in(ROUTER)), last);
        List<String> best = c.graph().add("TopK", List.of(scores, c.graph().ints(chosen)), last, 2);
        String gates = best.get(0);
        if (quantised && c.has(AGGREGATION)) {
            gates = c.add("GatherElements", List.of(c.in(AGGREGATION), best.get(1)), last);
        } else if (quantised) {
            return List.of(c.add("Softmax", List.of(gates), last), best.get(1));
        }
        gates = normalised ? c.add("Div", gates, c.reduce("ReduceSum", gates, -1)) : gates;
        return List.of(quantised ? c.add("Relu", gates) : gates, best.get(1));
    }

    private String bias(Stack stack, int expert) {
        return c.has(stack.bias) ? slice(stack.bias, expert) : "";
    }

    private String slice(int operand, int expert) {
        return c.gather(c.in(operand), c.graph().index(expert), 0);
    }

    private String product(String x, Stack stack, int expert) {
        String matrix = quantised ? dequantised(stack, expert) : slice(stack.weights, expert);
        return c.add("MatMul", x, c.transpose(matrix, 1, 0));
    }

    /** The matrix {@code [outputs, inputs]} of one expert: (q − zero) · scale. Zero is half the range by default. */
    private String dequantised(Stack stack, int expert) {
        long outputs = c.extent(stack.weights, 1);
        long inputs = width(stack);
        long blocks = c.rank(stack.scales) == 3 ? c.extent(stack.scales, 2) : 1;
        String packed = slice(stack.weights, expert);
        String numbers = c.cast(
                QuantizedDecompositions.unpack(c, packed, bits(), outputs, blocks, inputs / blocks), DType.FLOAT);
        String zeros = c.scalar(1 << ((int) bits() - 1));
        if (c.has(stack.zeros)) {
            // Rows of zero points begin at a byte. Without blocks, all rows share one row of zero points.
            long lines = blocks > 1 ? outputs : 1;
            long each = blocks > 1 ? blocks : outputs;
            String unpacked = QuantizedDecompositions.unpack(c, slice(stack.zeros, expert), bits(), lines, -1);
            zeros = c.cast(c.slice(unpacked, 1, 0, each), DType.FLOAT);
            zeros = c.reshape(zeros, outputs, blocks, 1);
        }
        String scales = c.reshape(slice(stack.scales, expert), outputs, blocks, 1);
        return c.reshape(c.add("Mul", c.add("Sub", numbers, zeros), scales), outputs, inputs);
    }

    private String activated(String x, long inner) {
        return switch (activation()) {
            case "relu" -> c.add("Relu", x);
            case "gelu" -> c.add("Gelu", List.of(x), Map.of("approximate", new Attribute.Text("tanh")));
            case "silu" -> c.add("Mul", x, c.add("Sigmoid", x));
            case "swiglu" -> swiglu(x, inner);
            default -> x;
        };
    }

    /**
     * g · σ(alpha · g) · (l + beta) of interleaved g and l. g is at most {@code swiglu_limit}, and l between its negative
     * and itself.
     */
    private String swiglu(String x, long inner) {
        String pairs = c.reshape(x, -1, inner, 2);
        String gate = c.gather(pairs, c.graph().index(0), 2);
        String linear = c.gather(pairs, c.graph().index(1), 2);
        float limit = c.node().floatAttribute("swiglu_limit", Float.POSITIVE_INFINITY);
        if (limit < Float.POSITIVE_INFINITY) {
            gate = c.add("Min", gate, c.scalar(limit));
            linear = c.add("Max", c.add("Min", linear, c.scalar(limit)), c.scalar(-limit));
        }
        String alpha = c.scaled(gate, c.node().floatAttribute("activation_alpha", 1));
        String swish = c.add("Mul", gate, c.add("Sigmoid", alpha));
        float beta = c.node().floatAttribute("activation_beta", 0);
        return c.add("Mul", swish, beta == 0 ? linear : c.add("Add", linear, c.scalar(beta)));
    }
}
