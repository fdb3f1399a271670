// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import java.util.HashSet;
import java.util.Set;

/**
 * Finds the uses of side values: values that are computed beside the residual stream and shared between layers, such
 * as position slopes, rotary tables and masks repeated by head. With one set of dimensions they would tie the heads of
 * all layers together, although every layer can slice them individually.
 */
final class SideValues {
    private static final Set<String> MOVES =
            Set.of("Cast", "Expand", "Identity", "Reshape", "Squeeze", "Tile", "Transpose", "Unsqueeze");

    private SideValues() {}

    /** The uses of side values by operators that also consume a value computed from the stream. */
    static Set<Use> uses(DimensionAnalysis analysis) {
        ResidualStream stream = ResidualStream.of(analysis);
        Set<Use> uses = new HashSet<>();
        if (stream.width().isEmpty()) {
            return uses;
        }
        // A value computed only from constants is a weight that was moved or cast, not a side value.
        Set<Value> varying = new HashSet<>(analysis.program().inputs());
        Set<Value> fromStream = new HashSet<>();
        analysis.program().inputs().stream()
                .filter(input -> analysis.trace().dtype(input).isFloat())
                .forEach(fromStream::add);
        Set<Op> projections = projections(analysis);
        for (Op op : analysis.program().ops()) {
            if (op.inputs().stream().anyMatch(varying::contains)) {
                varying.addAll(op.outputs());
            }
            boolean usesStream = op.inputs().stream().anyMatch(fromStream::contains);
            if (usesStream && !op.node().is("Shape")) {
                for (int i = 0; i < op.inputs().size(); i++) {
                    if (varying.contains(op.input(i)) && isShared(analysis, op.input(i), fromStream)) {
                        uses.add(new Use(op, i));
                    }
                }
            }
            for (Value output : op.outputs()) {
                boolean own = usesStream || projections.contains(op) || hasWidth(analysis, output, stream);
                if (output != null && !op.node().is("Shape") && own) {
                    fromStream.add(output);
                }
            }
        }
        return uses;
    }

    /**
     * Linear layers. What they make of a value beside the stream, such as the keys that a block takes from the states
     * of an encoder, has weights of its own and is no table. A product over an extent of one makes rotary angles.
     */
    private static Set<Op> projections(DimensionAnalysis analysis) {
        Set<Op> found = new HashSet<>();
        analysis.facts().contractions().stream()
                .filter(contraction ->
                        contraction.withConstant() && !contraction.dim().isOne())
                .forEach(contraction -> found.add(contraction.op()));
        return found;
    }

    /** Whether a value is a constant in another form that nothing else reads: a weight of its only consumer. */
    private static boolean isOwnWeight(Value value) {
        Value current = value;
        while (current.constant() == null && current.uses().size() == 1 && current.producer() != null) {
            if (!MOVES.contains(current.producer().node().op())) {
                return false;
            }
            current = current.producer().input(0);
        }
        return current.constant() != null && current.uses().size() == 1;
    }

    /**
     * Whether the last axis is the hidden dimension, of the decoder or of an encoder in the same graph: the value is
     * the stream or will be added to it.
     */
    private static boolean hasWidth(DimensionAnalysis analysis, Value value, ResidualStream stream) {
        Dim[] dims = value.constant() == null ? analysis.dims(value) : null;
        if (dims == null || dims.length == 0 || !analysis.trace().dtype(value).isFloat()) {
            return false;
        }
        Set<Dim.Atom> last = dims[dims.length - 1].atoms();
        return last.containsAll(stream.width())
                || !last.isEmpty() && last.stream().allMatch(stream::isWidth);
    }

    private static boolean isShared(DimensionAnalysis analysis, Value value, Set<Value> fromStream) {
        if (value == null || value.constant() != null || fromStream.contains(value) || isOwnWeight(value)) {
            return false;
        }
        DType dtype = analysis.trace().dtype(value);
        Dim[] dims = dtype.isFloat() || dtype == DType.BOOL ? analysis.dims(value) : null;
        if (dims == null) {
            return false;
        }
        for (Dim dim : dims) {
            if (!dim.isOne() && !dim.isDynamic()) {
                return true;
            }
        }
        return false;
    }
}
