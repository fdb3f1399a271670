// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Slicing;
import io.onnxprune.ir.Tensor;
import java.util.Arrays;
import java.util.HashSet;
import java.util.Objects;
import java.util.Set;

/**
 * Finds the values that are zero at every index of a dimension that is not chosen: shares of a softmax, one-hot codes,
 * and what is written by index into zeros. Values that are zero everywhere belong to them.
 */
final class UnchosenZeros {
    /** Constants of more elements are not looked at. */
    private static final int SMALL = 1 << 16;

    /** Knows of no zeros. */
    static final UnchosenZeros NONE = new UnchosenZeros(null, Set.of());

    private final DimensionAnalysis analysis;
    private final Set<Dim.Atom> chosen;
    private final Set<Value> zeros = new HashSet<>();

    private UnchosenZeros(DimensionAnalysis analysis, Set<Dim.Atom> chosen) {
        this.analysis = analysis;
        this.chosen = chosen;
    }

    /**
     * Looks at the values of the program.
     *
     * @param chosen the dimensions that operators choose along
     */
    static UnchosenZeros of(DimensionAnalysis analysis, Set<Dim.Atom> chosen) {
        UnchosenZeros found = new UnchosenZeros(analysis, chosen);
        for (Op op : analysis.program().ops()) {
            Value output = op.output(0);
            boolean zero = output != null && output.constant() == null && found.isZero(op);
            if (zero && found.keepsAxis(op, output)) {
                op.outputs().stream().filter(Objects::nonNull).forEach(found.zeros::add);
            }
        }
        return found;
    }

    /** Whether a value is zero at each index that is not chosen, or everywhere. */
    boolean contains(Value value) {
        return zeros.contains(value);
    }

    /** Whether all elements of a value are zero. */
    boolean isZeroEverywhere(Value value) {
        return isZero(value) && (value.constant() != null || !hasChosenAxis(value));
    }

    private boolean isZero(Op op) {
        Node node = op.node();
        return switch (node.op()) {
            case "Softmax" -> hasChosenAxis(op.output(0));
            case "OneHot" -> analysis.targets().containsKey(op.input(0)) && isZeroFirst(op.input(2));
            case "ConstantOfShape" -> Absent.fillsZero(node);
            case "Equal" ->
                analysis.targets().containsKey(op.input(0))
                        && analysis.targets().containsKey(op.input(1));
            case "Scatter", "ScatterElements", "ScatterND" ->
                analysis.targets().containsKey(op.input(1)) && isZero(op.input(0));
            default -> Absent.keepsZero(node, input -> isZero(op.input(input)));
        };
    }

    private boolean isZero(Value value) {
        if (value == null || value.constant() == null) {
            return zeros.contains(value);
        }
        Tensor tensor = value.constant();
        return tensor.elements() > 0 && tensor.elements() <= SMALL && Absent.isZero(tensor);
    }

    private static boolean isZeroFirst(Value values) {
        Tensor tensor = values == null ? null : values.constant();
        return tensor != null && tensor.elements() == 2 && Absent.isZero(Slicing.slice(tensor, new int[][] {{0}}));
    }

    /** Whether a result has the chosen axis of its operands; a sum over it is not zero. */
    private boolean keepsAxis(Op op, Value output) {
        boolean before = op.inputs().stream().anyMatch(value -> value != null && hasChosenAxis(value));
        return !before || hasChosenAxis(output);
    }

    private boolean hasChosenAxis(Value value) {
        Dim[] dims = analysis.dims(value);
        return dims != null
                && Arrays.stream(dims).anyMatch(dim -> dim.atoms().stream().anyMatch(chosen::contains));
    }
}
