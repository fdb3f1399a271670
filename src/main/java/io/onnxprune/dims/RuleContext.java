// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import java.util.Arrays;
import java.util.List;
import java.util.Set;

/**
 * The interface of an operator rule to the analysis: the dimensions of its operands, unification, pins, and facts for
 * later stages (which numbers encode sizes, which axes are reduced, where attention is).
 */
final class RuleContext {
    private static final Set<String> WEIGHT_PRESERVING = Set.of(
            "Identity",
            "Cast",
            "Transpose",
            "Reshape",
            "Squeeze",
            "Unsqueeze",
            "Gather",
            "GatherND",
            "Split",
            "DequantizeLinear");

    private final DimensionAnalysis analysis;
    private final Op op;

    RuleContext(DimensionAnalysis analysis, Op op) {
        this.analysis = analysis;
        this.op = op;
    }

    Op op() {
        return op;
    }

    Node node() {
        return op.node();
    }

    /** The dimensions of operand {@code index} at this use; null when it is omitted or was not traced. */
    Dim[] in(int index) {
        return analysis.operand(op, index);
    }

    /**
     * The dimensions of result {@code index}, fresh with the traced extents; null when it is omitted or was not traced.
     */
    Dim[] out(int index) {
        Value value = op.output(index);
        return value == null ? null : analysis.dims(value);
    }

    /** The version of the default operator set. */
    long opset() {
        return analysis.program().model().opset();
    }

    boolean isConstant(int index) {
        Value value = op.input(index);
        return value != null && value.constant() != null;
    }

    /** Whether an operand is a weight: a constant, or a constant that was only moved, cast or selected from. */
    boolean isWeight(int index) {
        Value value = op.input(index);
        while (value != null && value.constant() == null && value.producer() != null) {
            if (!WEIGHT_PRESERVING.contains(value.producer().node().op())) {
                return false;
            }
            value = value.producer().input(0);
        }
        return value != null && value.constant() != null;
    }

    /** The elements of a small integer operand; null for any other operand. */
    Element[] elements(int index) {
        return analysis.elements().of(op.input(index));
    }

    /** The contents of a small integer operand that are equal in both traced runs; null otherwise. */
    long[] constants(int index) {
        Value value = op.input(index);
        if (value == null) {
            return null;
        }
        long[] first = analysis.trace().contents(value, 0);
        return first != null && Arrays.equals(first, analysis.trace().contents(value, 1)) ? first : null;
    }

    /** The contents of a small integer operand in one traced run; null for any other operand. */
    long[] contents(int index, int run) {
        Value value = op.input(index);
        return value == null ? null : analysis.trace().contents(value, run);
    }

    /** A fresh atom of the given extent. */
    Dim.Atom fresh(long size) {
        return analysis.unifier().atom(size, size);
    }

    /** The element type of operand {@code index}. */
    DType dtype(int index) {
        return analysis.trace().dtype(op.input(index));
    }

    /** A fresh atom of the given extent that is pinned. */
    Dim.Atom pinned(long size, String reason) {
        Dim.Atom atom = fresh(size);
        atom.pin(reason + " at node " + node().label());
        return atom;
    }

    /** Makes two dimensions equal. If that is impossible, both are pinned with this node as the reason. */
    void unify(Dim left, Dim right) {
        try {
            analysis.unifier().unify(left, right, node().label());
        } catch (Unifier.MismatchException e) {
            String reason = e.getMessage();
            pin(left, reason);
            pin(right, reason);
        }
    }

    /** Unifies two lists of equal length axis by axis. Axes of extent one on either side are skipped. */
    void unifyAll(Dim[] left, Dim[] right) {
        for (int i = 0; i < left.length; i++) {
            unifyBroadcast(left[i], right[i]);
        }
    }

    /** Unifies two axes of an element-wise operation, unless one has extent one and is broadcast. */
    void unifyBroadcast(Dim left, Dim right) {
        if (!left.isOne() && !right.isOne()) {
            unify(left, right);
        }
    }

    /**
     * Cuts a dimension into consecutive parts of the given extents. If that is impossible, the dimension is pinned and
     * null is returned.
     */
    List<Dim> cutInto(Dim dim, List<Long> extents) {
        if (isChosen(dim)) {
            pin(dim, "chosen among, and cut into parts");
            return null;
        }
        try {
            return analysis.unifier().cutInto(dim, extents);
        } catch (Unifier.MismatchException e) {
            pin(dim, e.getMessage());
            return null;
        }
    }

    void pin(Dim dim, String reason) {
        if (dim != null) {
            dim.atoms().forEach(atom -> atom.pin(reason + " at node " + node().label()));
        }
    }

    void pin(Dim[] dims, String reason) {
        if (dims != null) {
            for (Dim dim : dims) {
                pin(dim, reason);
            }
        }
    }

    /** Records that element {@code element} of integer operand {@code input} must equal {@code sign} times a size. */
    void require(int input, int element, int sign, Dim size) {
        analysis.facts().sizes().add(new AnalysisFacts.SizeOperand(op, input, element, sign, size, -1));
    }

    /** Records that an INT attribute (element -1) or an element of an INTS attribute must equal a size. */
    void requireAttribute(String attribute, int element, Dim size) {
        analysis.facts().attributes().add(new AnalysisFacts.SizeAttribute(op, attribute, element, size));
    }

    /** Records that a Split without explicit sizes has these parts. */
    void equalSplit(List<Dim> parts) {
        analysis.facts().equalSplits().add(new AnalysisFacts.EqualSplit(op, parts));
    }

    /** The dimensions of result {@code index} of an If in its two branches. */
    List<Dim[]> branchOutputs(int index) {
        return analysis.program().branchOutputs(node()).stream()
                .map(yields -> analysis.dims(yields.get(index)))
                .toList();
    }

    /** Whether the first output is a small integer vector: shape arithmetic, which has no dimensions of its own. */
    boolean isShapeArithmetic() {
        return analysis.trace().contents(op.output(0), 0) != null;
    }

    /** Whether the model takes rows of one length only. */
    boolean hasFixedLength() {
        return analysis.hasFixedLength();
    }

    /** Records that the operator takes a mean over {@code axes} of operand {@code input}. */
    void mean(int input, List<Integer> axes) {
        analysis.facts().means().add(new AnalysisFacts.Mean(op, input, List.copyOf(axes)));
    }

    /**
     * Records that the operator compares the values of operand {@code input} along {@code axis} and selects
     * {@code least} of them.
     */
    void choice(int input, int axis, boolean largest, long least) {
        analysis.facts().choices().add(new AnalysisFacts.Choice(op, input, axis, largest, Math.toIntExact(least)));
    }

    /**
     * Records that the operator reads only what belongs to one index of {@code dim}, which element {@code element}
     * of operand {@code input} names.
     */
    void selection(int input, int element, Dim dim, long index) {
        analysis.facts().selections().add(new AnalysisFacts.Selection(op, 0, dim, Math.toIntExact(index)));
        requirePlace(input, element, dim, index);
    }

    /** Records that the operator takes index {@code index} of {@code dim} from a constant; operand 1 names it. */
    void piece(Dim dim, long index) {
        analysis.facts().pieces().add(new AnalysisFacts.Selection(op, 0, dim, Math.toIntExact(index)));
    }

    /** Records that each operand of a Concat is one index of {@code dim}. */
    void parts(Dim dim) {
        for (int i = 0; i < op.inputs().size(); i++) {
            analysis.facts().parts().add(new AnalysisFacts.Part(op, i, dim, i));
        }
    }

    /** Records that each result of a Split has one index of {@code dim}, whether of scores or of a stack of constants. */
    void selections(Dim dim, boolean chosen) {
        List<AnalysisFacts.Selection> found =
                chosen ? analysis.facts().selections() : analysis.facts().pieces();
        for (int i = 0; i < op.outputs().size(); i++) {
            found.add(new AnalysisFacts.Selection(op, i, dim, i));
        }
    }

    /** Records that element {@code element} of operand {@code input} must be the place of index {@code index} of a dimension. */
    void requirePlace(int input, int element, Dim dim, long index) {
        analysis.facts().sizes().add(new AnalysisFacts.SizeOperand(op, input, element, 1, dim, Math.toIntExact(index)));
    }

    /** Records that the only axis of operand {@code input} numbers the indices of {@code dim}, in order. */
    void numbering(int input, Dim dim) {
        Arrays.stream(in(input)).filter(axis -> !axis.isOne()).forEach(axis -> unify(axis, dim));
        analysis.facts().numberings().add(new Use(op, input));
    }

    /** Whether an operator before this one chooses among the indices of {@code dim}. */
    boolean isChosen(Dim dim) {
        Dim resolved = dim.resolve();
        return resolved instanceof Dim.Atom
                && analysis.facts().choices().stream()
                        .anyMatch(choice -> choice.competes()
                                && analysis.operand(choice.op(), choice.input())[choice.axis()].resolve() == resolved);
    }

    /** Records that the operator sums over {@code axes} of operand {@code input}. */
    void total(int input, List<Integer> axes) {
        analysis.facts().totals().add(new AnalysisFacts.Total(op, input, List.copyOf(axes)));
    }

    /** The dimension whose indices the values of operand {@code input} are, such as those of chosen experts; else null. */
    Dim target(int input) {
        return analysis.targets().get(op.input(input));
    }

    /**
     * The dimensions whose indices the elements of an index of several components are, for operand {@code input}: null for
     * a component of another kind, and for an operand that is no such index.
     */
    Dim component(int input, int index) {
        Dim[] components = components(input);
        return components == null || index >= components.length ? null : components[index];
    }

    /** The dimensions of all components; null for an operand that is no such index. */
    Dim[] components(int input) {
        return analysis.components().get(op.input(input));
    }

    /** Declares the dimensions whose indices the components of the result are. */
    void hasComponents(Dim[] components) {
        analysis.components().put(op.output(0), components);
    }

    /** Declares that the values of result {@code index} are indices along {@code target}. */
    void pointsTo(int index, Dim target) {
        if (op.output(index) != null) {
            analysis.targets().put(op.output(index), target);
        }
    }

    /** Records a distribution over {@code axis} for each index of {@code batch}. */
    void distribution(List<Dim> batch, Dim axis) {
        analysis.facts().distributions().add(new AnalysisFacts.Distribution(op, batch, axis));
    }

    /**
     * Records a contraction over {@code dim}. A product with an empty constant, as of an adapter that is not loaded, says
     * nothing of the model and is left out.
     *
     * @param withConstant whether one operand is a weight
     */
    void contraction(Dim dim, boolean withConstant) {
        boolean empty = op.inputs().stream()
                .anyMatch(value -> value != null
                        && value.origin().constant() != null
                        && value.origin().constant().elements() == 0);
        if (!empty) {
            analysis.facts().contractions().add(new AnalysisFacts.Contraction(op, dim, withConstant));
        }
    }

    /** Records that the operator combines positions. */
    void mixes() {
        analysis.facts().mixers().add(op);
    }

    /** Records that the operator shifts or cuts activations along {@code axis}, if positions vary there. */
    void mixesAlong(Dim axis) {
        boolean activation = analysis.trace().dtype(op.output(0)).isFloat() && out(0).length >= 3;
        if (activation && axis.isDynamic()) {
            mixes();
        }
    }

    /** Records that it is not known what the operator computes. */
    void unknown() {
        analysis.facts().unknown().add(op);
    }

    /** The index of an axis of an operand of the given rank; negative numbers count from the end. */
    static int axis(long axis, int rank) {
        return (int) (axis < 0 ? axis + rank : axis);
    }
}
