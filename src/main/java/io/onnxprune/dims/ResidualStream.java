// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Program.Branch;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The residual stream of a decoder: the values joined by additions {@code x + f(x)}, their common width, and the
 * blocks {@code f} between them, grouped into layers.
 */
public final class ResidualStream {
    /**
     * One residual block.
     *
     * @param add the addition, plain or inside a fused skip normalisation
     * @param base the operand that is the residual stream
     * @param branch the operand that the block computes
     * @param ops the operator applications of the block
     * @param attention whether the block contains attention, which mixes positions
     * @param layer index of its layer
     */
    public record Block(Op add, Value base, Value branch, Set<Op> ops, boolean attention, int layer) {
        /** The reason why this block cannot be removed; null when it can. */
        public String pin() {
            return add.branch().isEmpty()
                    ? null
                    : "inside a branch of an If, at node " + add.node().label();
        }
    }

    private final DimensionAnalysis analysis;
    private final List<Dim.Atom> width;
    private final List<Block> blocks = new ArrayList<>();

    private ResidualStream(DimensionAnalysis analysis) {
        this.analysis = analysis;
        this.width = findWidth();
        if (!width.isEmpty()) {
            findBlocks();
        }
    }

    static ResidualStream of(DimensionAnalysis analysis) {
        return new ResidualStream(analysis);
    }

    /**
     * The atoms of the hidden dimension: one, unless the width consists of quantisation blocks; none without residual
     * additions.
     */
    public List<Dim.Atom> width() {
        return width;
    }

    /** All blocks in program order. A model with If nodes has the blocks of each branch. */
    public List<Block> blocks() {
        return blocks;
    }

    /** Number of layers. */
    public int layers() {
        return blocks.stream().mapToInt(block -> block.layer + 1).max().orElse(0);
    }

    private static boolean isAddition(Op op) {
        return op.node().is("Add") && op.node().domain().isEmpty() || isSkipNormalization(op);
    }

    /** Whether the operator adds its first two operands and normalises the sum. */
    public static boolean isSkipNormalization(Op op) {
        return op.node().is("SkipLayerNormalization") || op.node().is("SkipSimplifiedLayerNormalization");
    }

    private boolean joinsActivations(Op op) {
        return isAddition(op)
                && op.input(0) != null
                && op.input(1) != null
                && op.input(0).constant() == null
                && op.input(1).constant() == null
                && !lastAxis(op.input(0)).isEmpty()
                && lastAxis(op.input(0)).equals(lastAxis(op.input(1)));
    }

    /** The atoms of the last axis; empty when it is dynamic. */
    private List<Dim.Atom> lastAxis(Value value) {
        Dim[] dims = analysis.dims(value);
        boolean fixed = dims != null && dims.length >= 2 && !dims[dims.length - 1].isDynamic();
        return fixed ? List.copyOf(dims[dims.length - 1].atoms()) : List.of();
    }

    private List<Dim.Atom> findWidth() {
        Map<List<Dim.Atom>, Integer> votes = new HashMap<>();
        for (Op op : analysis.program().ops()) {
            if (joinsActivations(op) && (reaches(op.input(0), op.input(1)) || reaches(op.input(1), op.input(0)))) {
                votes.merge(lastAxis(op.input(0)), 1, Integer::sum);
            }
        }
        return votes.entrySet().stream()
                .max(Map.Entry.comparingByValue())
                .map(Map.Entry::getKey)
                .orElse(List.of());
    }

    /** Whether {@code to} is computed from the data of {@code start}, not only from its shape. */
    private boolean reaches(Value start, Value to) {
        Value from = start.origin();
        int first = from.producer() == null ? -1 : from.producer().index();
        Set<Value> seen = new HashSet<>();
        Deque<Value> open = new ArrayDeque<>(List.of(to));
        while (!open.isEmpty()) {
            Value value = open.pop();
            // A fused skip normalisation has the sum as an output beside the normalised one.
            boolean sibling = value.producer() != null
                    && value.producer().equals(from.producer())
                    && isSkipNormalization(value.producer());
            if (value == from || sibling) {
                return true;
            }
            boolean data = analysis.trace().dtype(value).isFloat();
            if (data && value.producer() != null && value.producer().index() > first && seen.add(value)) {
                value.producer().inputs().stream()
                        .filter(input -> input != null)
                        .forEach(open::push);
            }
        }
        return false;
    }

    private void findBlocks() {
        Set<Op> attention = new HashSet<>();
        analysis.facts().distributions().stream()
                .filter(AnalysisFacts.Distribution::overPositions)
                .forEach(distribution -> attention.add(distribution.op()));
        Set<Value> stream = new HashSet<>();
        Set<Value> fromStream = new HashSet<>();
        Map<List<Branch>, LayerCounter> counters = new HashMap<>();
        for (Op op : analysis.program().ops()) {
            boolean tainted = op.inputs().stream().anyMatch(fromStream::contains);
            if (joinsActivations(op) && lastAxis(op.input(0)).equals(width)) {
                int base = baseOperand(op, stream, fromStream);
                if (base >= 0) {
                    Value start = op.input(base).origin();
                    if (stream.add(start)) {
                        fromStream.add(start);
                        if (start.producer() != null && isSkipNormalization(start.producer())) {
                            taint(start.producer(), fromStream);
                        }
                        taintUpTo(op, fromStream);
                    }
                    Set<Op> inside = inside(op.input(1 - base), stream, fromStream);
                    boolean mixes = inside.stream().anyMatch(attention::contains);
                    boolean feedsForward = !mixes || containsForward(inside);
                    int layer = counters.computeIfAbsent(op.branch(), key -> new LayerCounter())
                            .next(mixes, feedsForward);
                    blocks.add(new Block(op, op.input(base), op.input(1 - base), inside, mixes, layer));
                    stream.add(sum(op));
                    tainted = true;
                }
            }
            if (tainted) {
                taint(op, fromStream);
            }
        }
    }

    /** Marks the outputs of an operator as computed from the stream. Shapes derived from the stream do not count. */
    private void taint(Op op, Set<Value> fromStream) {
        op.outputs().stream()
                .filter(value -> value != null && analysis.trace().dtype(value).isFloat())
                .forEach(fromStream::add);
    }

    /** The output that is the sum. For a last skip normalisation without that output, its normalised output. */
    public static Value sum(Op op) {
        return isSkipNormalization(op) && op.output(3) != null ? op.output(3) : op.output(0);
    }

    private int baseOperand(Op op, Set<Value> stream, Set<Value> fromStream) {
        for (int base = 0; base < 2; base++) {
            if (stream.contains(op.input(base).origin()) && fromStream.contains(op.input(1 - base))
                    || !stream.contains(op.input(1 - base).origin()) && reaches(op.input(base), op.input(1 - base))) {
                return base;
            }
        }
        return -1;
    }

    /** Marks all values before {@code op} that are computed from a value of {@code fromStream}. */
    private void taintUpTo(Op op, Set<Value> fromStream) {
        for (Op earlier : analysis.program().ops().subList(0, op.index() + 1)) {
            if (earlier.inputs().stream().anyMatch(fromStream::contains)) {
                taint(earlier, fromStream);
            }
        }
    }

    private static Set<Op> inside(Value branch, Set<Value> stream, Set<Value> fromStream) {
        Set<Op> inside = new LinkedHashSet<>();
        Deque<Value> open = new ArrayDeque<>(List.of(branch));
        while (!open.isEmpty()) {
            Value value = open.pop();
            if (value.producer() != null
                    && fromStream.contains(value)
                    && !stream.contains(value)
                    && !stream.contains(sum(value.producer()))
                    && inside.add(value.producer())) {
                value.producer().inputs().stream()
                        .filter(input -> input != null)
                        .forEach(open::push);
            }
        }
        return inside;
    }

    /**
     * Whether an attention block also has a feed-forward part: linear layers beside the attention, neither before nor
     * after it.
     */
    private boolean containsForward(Set<Op> inside) {
        Set<Op> around = beforeAttention(inside);
        for (Op op : attention(inside)) {
            closure(op, inside, around, false);
        }
        return analysis.facts().contractions().stream()
                .anyMatch(contraction -> inside.contains(contraction.op())
                        && contraction.withConstant()
                        && !around.contains(contraction.op()));
    }

    /**
     * The operators of a block that compute attention distributions, and those that mix values by the distributions.
     */
    private Set<Op> attention(Set<Op> inside) {
        Set<Op> found = new HashSet<>();
        Set<Op> after = new HashSet<>();
        for (AnalysisFacts.Distribution distribution : analysis.facts().distributions()) {
            if (inside.contains(distribution.op()) && distribution.overPositions()) {
                found.add(distribution.op());
                closure(distribution.op(), inside, after, false);
            }
        }
        analysis.facts().contractions().stream()
                .filter(contraction -> !contraction.withConstant() && after.contains(contraction.op()))
                .forEach(contraction -> found.add(contraction.op()));
        return found;
    }

    /** The operators among those of one block ({@code inside}) that its attention is computed from. */
    Set<Op> beforeAttention(Set<Op> inside) {
        Set<Op> before = new HashSet<>();
        for (Op op : attention(inside)) {
            closure(op, inside, before, true);
        }
        return before;
    }

    /**
     * Adds to {@code found} all operators of a block that {@code start} is computed from (backward) or that are
     * computed from it.
     */
    private static void closure(Op start, Set<Op> inside, Set<Op> found, boolean backward) {
        Deque<Op> open = new ArrayDeque<>(List.of(start));
        Set<Op> seen = new HashSet<>();
        while (!open.isEmpty()) {
            Op op = open.pop();
            if (!inside.contains(op) || !seen.add(op)) {
                continue;
            }
            found.add(op);
            if (backward) {
                op.inputs().stream()
                        .filter(value -> value != null && value.producer() != null)
                        .forEach(value -> open.push(value.producer()));
            } else {
                op.outputs().stream()
                        .filter(value -> value != null)
                        .forEach(value -> value.uses().forEach(use -> open.push(use.op())));
            }
        }
    }

    /** Counts layers: a layer has at most one attention and one feed-forward block, in either order. */
    private static final class LayerCounter {
        private int layer;
        private boolean attention;
        private boolean forward;

        int next(boolean mixes, boolean feedsForward) {
            if (attention && mixes || forward && feedsForward) {
                layer++;
                attention = false;
                forward = false;
            }
            attention |= mixes;
            forward |= feedsForward;
            return layer;
        }
    }
}
