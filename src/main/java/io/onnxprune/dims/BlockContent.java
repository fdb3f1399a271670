// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayDeque;
import java.util.Deque;
import java.util.HashSet;
import java.util.Objects;
import java.util.Set;
import java.util.stream.Stream;

/** What the operators of residual blocks do: which of them attend, mix positions, or read values beside the stream. */
final class BlockContent {
    private final DimensionAnalysis analysis;
    private final Set<Op> attends = new HashSet<>();
    private final Set<Op> mixes = new HashSet<>();
    private final Set<Value> beside;

    /**
     * Collects the operators of the whole program.
     *
     * @param fromStream the values that are computed from the residual stream
     */
    BlockContent(DimensionAnalysis analysis, Set<Value> fromStream) {
        this.analysis = analysis;
        this.beside = computedFrom(new HashSet<>(analysis.program().inputs()));
        this.beside.removeAll(computedFrom(new HashSet<>(fromStream)));
        AnalysisFacts facts = analysis.facts();
        facts.distributions().stream()
                .filter(AnalysisFacts.Distribution::overPositions)
                .forEach(distribution -> attends.add(distribution.op()));
        mixes.addAll(attends);
        mixes.addAll(facts.mixers());
        facts.contractions().stream()
                .filter(contraction ->
                        !contraction.withConstant() && contraction.dim().isDynamic())
                .forEach(contraction -> mixes.add(contraction.op()));
    }

    /**
     * The kind of a block.
     *
     * @param inside the operators of the block
     * @param shared those of them that distant blocks have too
     * @param ofStream the values that are computed from the stream of this block
     */
    BlockKind kind(Set<Op> inside, Set<Op> shared, Set<Value> ofStream) {
        Set<Op> own = new HashSet<>(inside);
        own.removeAll(shared);
        if (own.stream().noneMatch(mixes::contains)) {
            if (own.stream().anyMatch(analysis.facts().unknown()::contains)) {
                return BlockKind.UNKNOWN;
            }
            return !shared.isEmpty() || own.stream().anyMatch(this::readsBesideStream)
                    ? BlockKind.SIDE_INPUT
                    : BlockKind.FEED_FORWARD;
        }
        if (containsForward(inside)) {
            return BlockKind.PARALLEL;
        }
        if (own.stream().noneMatch(attends::contains)) {
            return BlockKind.MIXER;
        }
        return attention(inside).stream().anyMatch(op -> mixesOtherValues(op, ofStream))
                ? BlockKind.CROSS_ATTENTION
                : BlockKind.ATTENTION;
    }

    /** Adds to {@code values} all values that are computed from their contents, not only from their shapes. */
    Set<Value> computedFrom(Set<Value> values) {
        for (Op op : analysis.program().ops()) {
            boolean shape = op.node().is("Shape") || op.node().is("Size");
            if (!shape && op.inputs().stream().anyMatch(values::contains)) {
                values.addAll(op.outputs());
            }
        }
        values.remove(null);
        return values;
    }

    /** Whether an operator reads an activation that is computed from the inputs, but not from the stream. */
    private boolean readsBesideStream(Op op) {
        return op.inputs().stream().anyMatch(value -> beside.contains(value) && isActivation(value, 2));
    }

    private boolean isActivation(Value value, int rank) {
        boolean computed =
                value.constant() == null && analysis.trace().dtype(value).isFloat();
        Dim[] dims = computed ? analysis.dims(value) : null;
        return dims != null
                && dims.length >= rank
                && !dims[dims.length - 1].isOne()
                && !dims[dims.length - 1].isDynamic();
    }

    /** Whether the values that an attention operator mixes are not computed from the stream. */
    private boolean mixesOtherValues(Op op, Set<Value> ofStream) {
        // A fused operator reads queries, keys and values, in this order.
        Stream<Value> mixed = attends.contains(op) ? Stream.ofNullable(op.input(2)) : op.inputs().stream();
        return mixed.anyMatch(value -> value != null && !ofStream.contains(value) && isActivation(value, 3));
    }

    /**
     * Whether a block that mixes positions also has a feed-forward part: linear layers beside the mixing, neither
     * before nor after it. A layer whose result meets that of the mixing in another linear layer is a gate.
     */
    private boolean containsForward(Set<Op> inside) {
        Set<Op> mixing = attention(inside);
        inside.stream().filter(mixes::contains).forEach(mixing::add);
        Set<Op> around = new HashSet<>();
        for (Op op : mixing) {
            closure(op, inside, around, true);
            closure(op, inside, around, false);
        }
        Set<Op> linear = new HashSet<>();
        analysis.facts().contractions().stream()
                .filter(contraction -> contraction.withConstant() && inside.contains(contraction.op()))
                .forEach(contraction -> linear.add(contraction.op()));
        for (Op op : linear) {
            Set<Op> after = new HashSet<>();
            closure(op, inside, after, false);
            boolean gates = after.stream().anyMatch(next -> linear.contains(next) && around.contains(next));
            if (!around.contains(op) && !gates) {
                return true;
            }
        }
        return false;
    }

    /**
     * The operators of a block that compute attention distributions, and those that mix values by the distributions.
     */
    private Set<Op> attention(Set<Op> inside) {
        Set<Op> found = new HashSet<>();
        Set<Op> after = new HashSet<>();
        for (Op op : attends) {
            if (inside.contains(op)) {
                found.add(op);
                closure(op, inside, after, false);
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
        Deque<Op> open = new ArrayDeque<>();
        open.add(start);
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
                        .filter(Objects::nonNull)
                        .forEach(value -> value.uses().forEach(use -> open.push(use.op())));
            }
        }
    }
}
