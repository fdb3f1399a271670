// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Branch;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;

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
     * @param kind what the block computes
     * @param layer index of its layer
     */
    public record Block(Op add, Value base, Value branch, Set<Op> ops, BlockKind kind, int layer) {
        /** The reason why this block cannot be removed; null when it can. */
        public String pin() {
            return add.branch().isEmpty()
                    ? null
                    : "inside a branch of an If, at node " + add.node().label();
        }
    }

    private final DimensionAnalysis analysis;
    private final Set<Dim.Atom> widths = new HashSet<>();
    private final List<Dim.Atom> width;
    private final List<Block> blocks = new ArrayList<>();
    private final Set<Value> fromStream = new HashSet<>();
    private final BlockContent content;

    private ResidualStream(DimensionAnalysis analysis) {
        this.analysis = analysis;
        this.width = findWidth();
        if (!width.isEmpty()) {
            findBlocks();
        }
        this.content = new BlockContent(analysis, fromStream);
        classify();
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

    /**
     * Whether a dimension is the width of any residual stream: of this one, of an encoder, or of one beyond an operator
     * that cannot be followed.
     */
    boolean isWidth(Dim.Atom atom) {
        return widths.contains(atom);
    }

    /** All blocks in program order. A model with If nodes has the blocks of each branch. */
    public List<Block> blocks() {
        return blocks;
    }

    /** Number of layers. */
    public int layers() {
        return blocks.stream().mapToInt(block -> block.layer + 1).max().orElse(0);
    }

    /** The reason why no residual stream was found; only for a stream without blocks. */
    public String missing() {
        List<Op> sums =
                analysis.program().ops().stream().filter(this::joinsActivations).toList();
        if (sums.isEmpty()) {
            return "no addition joins two computed values of one fixed width";
        }
        Op last = sums.get(sums.size() - 1);
        String opaque = upstream(last).stream()
                .filter(op -> op.outputs().stream()
                        .anyMatch(value -> value != null && analysis.trace().dtype(value) == DType.UNDEFINED))
                .map(op -> "; what node " + op.node().label() + " makes is not a tensor, so it cannot be followed")
                .findFirst()
                .orElse("");
        return "no addition joins a value with one that is computed from it, up to node "
                + last.node().label() + opaque;
    }

    private static Set<Op> upstream(Op last) {
        Set<Op> found = new LinkedHashSet<>();
        Deque<Op> open = new ArrayDeque<>(List.of(last));
        while (!open.isEmpty()) {
            Op op = open.pop();
            if (found.add(op)) {
                op.inputs().stream()
                        .filter(value -> value != null && value.producer() != null)
                        .forEach(value -> open.push(value.producer()));
            }
        }
        return found;
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
        Set<Op> contractions = new HashSet<>();
        analysis.facts().contractions().forEach(contraction -> contractions.add(contraction.op()));
        for (Op op : analysis.program().ops()) {
            for (int base = 0; base < 2 && joinsActivations(op); base++) {
                if (reaches(op.input(base), op.input(1 - base), Set.of())) {
                    votes.merge(lastAxis(op.input(0)), 1, Integer::sum);
                    // Activation functions have additions too, but no products of matrices.
                    if (!reaches(op.input(base), op.input(1 - base), contractions)) {
                        widths.addAll(lastAxis(op.input(0)));
                    }
                    break;
                }
            }
        }
        return votes.entrySet().stream()
                .max(Map.Entry.comparingByValue())
                .map(Map.Entry::getKey)
                .orElse(List.of());
    }

    /**
     * Whether {@code to} is computed from the data of {@code start}, not only from its shape, on a way without the
     * operators of {@code barred}.
     */
    private boolean reaches(Value start, Value to, Set<Op> barred) {
        Value from = source(start);
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
            boolean data = isActivation(value);
            Op producer = value.producer();
            if (data && producer != null && producer.index() > first && !barred.contains(producer) && seen.add(value)) {
                producer.inputs().stream().filter(input -> input != null).forEach(open::push);
            }
        }
        return false;
    }

    /** The value that this one is a copy, a cast or a quantised and dequantised form of. */
    private static Value source(Value value) {
        Value current = value.origin();
        while (current.producer() != null
                && (current.producer().node().is("DequantizeLinear")
                        || current.producer().node().is("QuantizeLinear"))) {
            current = current.producer().input(0).origin();
        }
        return current;
    }

    private void findBlocks() {
        Set<Value> stream = new HashSet<>();
        for (Op op : analysis.program().ops()) {
            boolean tainted = op.inputs().stream().anyMatch(fromStream::contains);
            if (joinsActivations(op) && lastAxis(op.input(0)).equals(width)) {
                int base = baseOperand(op, stream);
                if (base >= 0) {
                    Value start = source(op.input(base));
                    if (stream.add(start)) {
                        fromStream.add(start);
                        if (start.producer() != null && isSkipNormalization(start.producer())) {
                            taint(start.producer());
                        }
                        taintUpTo(op);
                    }
                    Set<Op> inside = inside(op.input(1 - base), stream);
                    blocks.add(new Block(op, op.input(base), op.input(1 - base), inside, BlockKind.UNKNOWN, 0));
                    stream.add(sum(op));
                    tainted = true;
                }
            }
            if (tainted) {
                taint(op);
            }
        }
    }

    /** Gives each block its kind and its layer, counted through all streams of one branch. */
    private void classify() {
        Map<List<Branch>, Integer> counted = new HashMap<>();
        for (List<Integer> indices : sequences()) {
            List<Set<Op>> contents =
                    indices.stream().map(index -> blocks.get(index).ops()).toList();
            Set<Value> ofStream = new HashSet<>();
            indices.forEach(index -> ofStream.add(blocks.get(index).base()));
            content.computedFrom(ofStream);
            List<BlockKind> kinds = IntStream.range(0, contents.size())
                    .mapToObj(i -> content.kind(contents.get(i), sharedWithDistant(contents, i), ofStream))
                    .toList();
            int[] layers = LayerPartition.of(kinds);
            List<Branch> branch = blocks.get(indices.get(0)).add().branch();
            int before = counted.getOrDefault(branch, 0);
            for (int i = 0; i < layers.length; i++) {
                Block b = blocks.get(indices.get(i));
                int layer = before + layers[i];
                blocks.set(indices.get(i), new Block(b.add(), b.base(), b.branch(), b.ops(), kinds.get(i), layer));
                counted.put(branch, layer + 1);
            }
        }
    }

    /**
     * The blocks of each branch of an If, and within it of each stream: an encoder that shares its embedding with the
     * decoder has the same width, but no value of the decoder's stream is computed from it alone.
     */
    private List<List<Integer>> sequences() {
        Map<Value, Integer> firsts = new HashMap<>();
        Map<Integer, List<Integer>> sequences = new LinkedHashMap<>();
        for (int i = 0; i < blocks.size(); i++) {
            Block block = blocks.get(i);
            int first = firsts.getOrDefault(sumBefore(block.base(), firsts.keySet()), i);
            boolean sameBranch =
                    blocks.get(first).add().branch().equals(block.add().branch());
            first = sameBranch ? first : i;
            firsts.put(sum(block.add()), first);
            if (isSkipNormalization(block.add())) {
                firsts.put(block.add().output(0), first);
            }
            sequences.computeIfAbsent(first, key -> new ArrayList<>()).add(i);
        }
        return List.copyOf(sequences.values());
    }

    /** The nearest of {@code sums} that a value is computed from, such as through a normalisation; null if none is. */
    private static Value sumBefore(Value base, Set<Value> sums) {
        Set<Value> seen = new HashSet<>();
        Deque<Value> open = new ArrayDeque<>(List.of(base));
        while (!open.isEmpty()) {
            Value value = open.poll();
            if (sums.contains(value)) {
                return value;
            }
            if (seen.add(value) && value.producer() != null) {
                value.producer().inputs().stream()
                        .filter(input -> input != null)
                        .forEach(open::add);
            }
        }
        return null;
    }

    /**
     * The operators of a block that blocks other than its neighbours have too. Neighbours that start at the same value
     * may share its normalisation.
     */
    private static Set<Op> sharedWithDistant(List<Set<Op>> contents, int block) {
        Set<Op> shared = new HashSet<>();
        for (int other = 0; other < contents.size(); other++) {
            if (Math.abs(other - block) > 1) {
                contents.get(block).stream()
                        .filter(contents.get(other)::contains)
                        .forEach(shared::add);
            }
        }
        return shared;
    }

    /** The operators among those of a block that its attention is computed from. */
    Set<Op> beforeAttention(Block block) {
        return content.beforeAttention(block.ops());
    }

    /** Marks the outputs of an operator as computed from the stream. Shapes derived from the stream do not count. */
    private void taint(Op op) {
        op.outputs().stream()
                .filter(value -> value != null && isActivation(value))
                .forEach(fromStream::add);
    }

    /** Whether a value is of numbers that a network computes with, also where they are quantised to 8 bits. */
    private boolean isActivation(Value value) {
        DType dtype = analysis.trace().dtype(value);
        return dtype.isFloat() || dtype == DType.INT8 || dtype == DType.UINT8;
    }

    /** The output that is the sum. For a last skip normalisation without that output, its normalised output. */
    public static Value sum(Op op) {
        return isSkipNormalization(op) && op.output(3) != null ? op.output(3) : op.output(0);
    }

    private int baseOperand(Op op, Set<Value> stream) {
        for (int base = 0; base < 2; base++) {
            if (stream.contains(source(op.input(base))) && fromStream.contains(op.input(1 - base))
                    || !stream.contains(source(op.input(1 - base)))
                            && reaches(op.input(base), op.input(1 - base), Set.of())) {
                return base;
            }
        }
        return -1;
    }

    /** Marks all values before {@code op} that are computed from the stream. */
    private void taintUpTo(Op op) {
        for (Op earlier : analysis.program().ops().subList(0, op.index() + 1)) {
            if (earlier.inputs().stream().anyMatch(fromStream::contains)) {
                taint(earlier);
            }
        }
    }

    private Set<Op> inside(Value branch, Set<Value> stream) {
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
}
