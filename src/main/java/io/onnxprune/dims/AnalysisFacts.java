// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Program.Op;
import java.util.ArrayList;
import java.util.List;

/** What the operator rules noted beside unification. */
public final class AnalysisFacts {
    /** Element {@code element} of integer operand {@code input} must equal {@code sign} × the size of {@code dim}. */
    public record SizeOperand(Op op, int input, int element, int sign, Dim dim) {}

    /** An INT attribute (element -1), or an element of an INTS attribute, must equal the size of {@code dim}. */
    public record SizeAttribute(Op op, String attribute, int element, Dim dim) {}

    /** A Split into equal parts, which no longer are equal when one of them is pruned more than the others. */
    public record EqualSplit(Op op, List<Dim> parts) {}

    /** A mean over {@code axes} of operand {@code input}: its divisor changes with their extents. */
    public record Mean(Op op, int input, List<Integer> axes) {}

    /** Softmax or fused attention: a distribution over {@code axis} for each index of {@code batch}. */
    public record Distribution(Op op, List<Dim> batch, Dim axis) {
        /** Attention distributes over positions, whose number varies; a router distributes over experts. */
        boolean overPositions() {
            return axis.isDynamic() || axis.isOne();
        }
    }

    /** A sum of products over {@code dim}, with a constant operand (a linear layer) or between two activations. */
    public record Contraction(Op op, Dim dim, boolean withConstant) {}

    private final List<SizeOperand> sizes = new ArrayList<>();
    private final List<SizeAttribute> attributes = new ArrayList<>();
    private final List<EqualSplit> equalSplits = new ArrayList<>();
    private final List<Mean> means = new ArrayList<>();
    private final List<Distribution> distributions = new ArrayList<>();
    private final List<Contraction> contractions = new ArrayList<>();

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
}
