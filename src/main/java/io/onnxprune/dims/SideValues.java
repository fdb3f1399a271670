// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * Finds the uses of side values: values that are computed beside the residual stream and shared between layers, such
 * as position slopes, rotary tables and masks repeated by head. With one set of dimensions they would tie the heads of
 * all layers together, although every layer can slice them individually.
 */
final class SideValues {
    private SideValues() {}

    /** The uses of side values by operators that also consume a value computed from the stream. */
    static Set<Use> uses(DimensionAnalysis analysis) {
        List<Dim.Atom> width = ResidualStream.of(analysis).width();
        Set<Use> uses = new HashSet<>();
        if (width.isEmpty()) {
            return uses;
        }
        // A value computed only from constants is a weight that was moved or cast, not a side value.
        Set<Value> varying = new HashSet<>(analysis.program().inputs());
        Set<Value> fromStream = new HashSet<>();
        analysis.program().inputs().stream()
                .filter(input -> analysis.trace().dtype(input).isFloat())
                .forEach(fromStream::add);
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
                if (output != null && !op.node().is("Shape") && (usesStream || hasWidth(analysis, output, width))) {
                    fromStream.add(output);
                }
            }
        }
        return uses;
    }

    /** Whether the last axis is the hidden dimension: the value is the stream or will be added to it. */
    private static boolean hasWidth(DimensionAnalysis analysis, Value value, List<Dim.Atom> width) {
        Dim[] dims = value.constant() == null ? analysis.dims(value) : null;
        return dims != null
                && dims.length > 0
                && analysis.trace().dtype(value).isFloat()
                && dims[dims.length - 1].atoms().containsAll(width);
    }

    private static boolean isShared(DimensionAnalysis analysis, Value value, Set<Value> fromStream) {
        if (value == null || value.constant() != null || fromStream.contains(value)) {
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
