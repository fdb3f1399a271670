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
 * Finds where blocks read values that are computed beside the residual stream and shared between layers: position
 * slopes, rotary tables, masks repeated by head. Read like that they would tie the heads of all layers together, though
 * every layer can take its own slice of them.
 */
final class SideValues {
    private SideValues() {}

    /** The uses of side values, by applications that also read something computed from the stream. */
    static Set<Use> uses(DimensionAnalysis analysis) {
        List<Dim.Atom> width = ResidualStream.of(analysis).width();
        Set<Use> uses = new HashSet<>();
        if (width.isEmpty()) {
            return uses;
        }
        // What is computed from constants alone is a weight that was moved or cast, not a value beside the stream.
        Set<Value> varying = new HashSet<>(analysis.program().inputs());
        Set<Value> fromStream = new HashSet<>();
        analysis.program().inputs().stream()
                .filter(input -> analysis.trace().dtype(input).isFloat())
                .forEach(fromStream::add);
        for (Op op : analysis.program().ops()) {
            if (op.inputs().stream().anyMatch(varying::contains)) {
                varying.addAll(op.outputs());
            }
            boolean reads = op.inputs().stream().anyMatch(fromStream::contains);
            if (reads && !op.node().is("Shape")) {
                for (int i = 0; i < op.inputs().size(); i++) {
                    if (varying.contains(op.input(i)) && isShared(analysis, op.input(i), fromStream)) {
                        uses.add(new Use(op, i));
                    }
                }
            }
            for (Value output : op.outputs()) {
                if (output != null && !op.node().is("Shape") && (reads || carries(analysis, output, width))) {
                    fromStream.add(output);
                }
            }
        }
        return uses;
    }

    /** Whether the last axis is the hidden dimension: the stream itself, or what will be added to it. */
    private static boolean carries(DimensionAnalysis analysis, Value value, List<Dim.Atom> width) {
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
