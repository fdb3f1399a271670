// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;

/** Facts that operator rules record in addition to unification. */
public final class AnalysisFacts {
    /**
     * An integer operand that encodes a size or a place: its element {@code element} must equal {@code sign} times the
     * size of {@code dim}, or times the number of those of its first {@code first} indices that are kept.
     *
     * @param first -1 for all indices
     */
    public record SizeOperand(Op op, int input, int element, int sign, Dim dim, int first) {
        /** The number that the operand needs in a traced run. */
        public long needed(int run, Dim.Keep keep) {
            long size = first < 0
                    ? dim.size(run, keep)
                    : Arrays.stream(dim.kept(keep))
                            .filter(index -> index < first)
                            .count();
            return sign * size;
        }
    }

    /**
     * A result of an operator that has only what belongs to index {@code index} of {@code dim}: the only result, or one of
     * a Split into single indices.
     */
    public record Selection(Op op, int output, Dim dim, int index) {}

    /**
     * An attribute that encodes a size: an INT (element -1) or an element of an INTS must equal the size of
     * {@code dim}.
     */
    public record SizeAttribute(Op op, String attribute, int element, Dim dim) {}

    /** A Split into equal parts. The parts become unequal when they are pruned differently. */
    public record EqualSplit(Op op, List<Dim> parts) {}

    /** A mean over {@code axes} of operand {@code input}. Its divisor depends on their extents. */
    public record Mean(Op op, int input, List<Integer> axes) {}

    /** A softmax or fused attention: a distribution over {@code axis} for each index of {@code batch}. */
    public record Distribution(Op op, List<Dim> batch, Dim axis) {
        /**
         * Whether this is attention, a distribution over positions, whose number varies. A router distributes over
         * experts.
         */
        boolean overPositions() {
            return axis.isDynamic() || axis.isOne();
        }
    }

    /**
     * A sum of products over {@code dim}.
     *
     * @param withConstant whether one operand is a constant (a linear layer); false between two activations
     */
    public record Contraction(Op op, Dim dim, boolean withConstant) {}

    /**
     * An operator that compares the values of operand {@code input} along {@code axis}: a softmax, a top-k, or fused
     * experts with the scores of their router. Where indices of the axis are removed, those that are kept are compared.
     *
     * @param largest whether large values win
     * @param least number of indices that must be kept, because the operator selects as many; 0 for a maximum, which
     *     alone does not tell what competes
     */
    public record Choice(Op op, int input, int axis, boolean largest, int least) {
        boolean competes() {
            return least > 0;
        }
    }

    /** Operand {@code input} of a Concat of single indices, which becomes index {@code index} of {@code dim}. */
    public record Part(Op op, int input, Dim dim, int index) {}

    /** A sum over {@code axes} of operand {@code input}. */
    public record Total(Op op, int input, List<Integer> axes) {}

    private final List<SizeOperand> sizes = new ArrayList<>();
    private final List<SizeAttribute> attributes = new ArrayList<>();
    private final List<EqualSplit> equalSplits = new ArrayList<>();
    private final List<Mean> means = new ArrayList<>();
    private final List<Distribution> distributions = new ArrayList<>();
    private final List<Contraction> contractions = new ArrayList<>();
    private final List<Selection> selections = new ArrayList<>();
    private final List<Selection> pieces = new ArrayList<>();
    private final List<Part> parts = new ArrayList<>();
    private final Set<Use> numberings = new HashSet<>();
    private final List<Choice> choices = new ArrayList<>();
    private final List<Total> totals = new ArrayList<>();
    private final Set<Op> mixers = new HashSet<>();
    private final Set<Op> unknown = new LinkedHashSet<>();

    AnalysisFacts() {}

    public List<SizeOperand> sizes() {
        return sizes;
    }

    public List<SizeAttribute> attributes() {
        return attributes;
    }

    public List<EqualSplit> equalSplits() {
        return equalSplits;
    }

    public List<Mean> means() {
        return means;
    }

    public List<Distribution> distributions() {
        return distributions;
    }

    public List<Contraction> contractions() {
        return contractions;
    }

    public List<Selection> selections() {
        return selections;
    }

    /** Selections by a constant index from constants, such as that of one expert's matrix from a stack. */
    public List<Selection> pieces() {
        return pieces;
    }

    public List<Part> parts() {
        return parts;
    }

    /** Constants that number the indices of their only axis with more than one index. */
    public Set<Use> numberings() {
        return numberings;
    }

    public List<Choice> choices() {
        return choices;
    }

    /** Sums of a reduction. */
    public List<Total> totals() {
        return totals;
    }

    /** Operators that combine positions other than by a sum of products: convolutions, recurrences, running sums. */
    public Set<Op> mixers() {
        return mixers;
    }

    /** Operators of which it is not known what they compute. */
    public Set<Op> unknown() {
        return unknown;
    }
}
