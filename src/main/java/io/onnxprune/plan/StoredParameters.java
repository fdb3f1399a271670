// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.QuantizedOperands;
import io.onnxprune.dims.QuantizedOperands.Part;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;

/**
 * The number of parameters in each element of a constant. Every number is a parameter unless it provably is none: a
 * single number, a size or an index (integers of 16 bits and more), a truth value, a table ({@link Tables}), or the scale
 * or zero point of quantised weights. Quantised weights count as the weights that they represent.
 */
final class StoredParameters {
    /** Operators that pass a constant on to the operator that computes with it. */
    private static final Set<String> MOVES =
            Set.of("Cast", "Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze");

    private final Tables tables;
    private final Map<Tensor, List<Value>> values = new HashMap<>();

    StoredParameters(Structure structure) {
        this.tables = new Tables(structure);
        for (Op op : structure.analysis().program().ops()) {
            for (Value input : op.inputs()) {
                if (input != null && input.constant() != null) {
                    List<Value> same = values.computeIfAbsent(input.constant(), key -> new ArrayList<>());
                    if (!same.contains(input)) {
                        same.add(input);
                    }
                }
            }
        }
    }

    /** The parameters in each element of {@code tensor}; 0 if it has none. */
    int perElement(Tensor tensor) {
        if (tensor.rank() == 0 || tensor.elements() == 1 || tensor.dtype().bits() == 0) {
            return 0;
        }
        List<Value> readers = values.getOrDefault(tensor, List.of());
        if (readers.isEmpty()) {
            return isNumber(tensor.dtype()) ? 1 : 0;
        }
        return readers.stream()
                .mapToInt(value -> {
                    int most = mostAt(value, tensor);
                    return most == 0 || tables.isTable(value) ? 0 : most;
                })
                .max()
                .orElse(0);
    }

    /** The first of {@code ops} that reads {@code tensor} itself or after moves; null if there is none. */
    Op reader(Tensor tensor, Set<Op> ops) {
        return values.getOrDefault(tensor, List.of()).stream()
                .map(value -> reader(value, ops))
                .filter(Objects::nonNull)
                .findFirst()
                .orElse(null);
    }

    private static Op reader(Value value, Set<Op> ops) {
        for (Use use : value.uses()) {
            Op found = ops.contains(use.op())
                    ? use.op()
                    : moves(use) ? reader(use.op().output(0), ops) : null;
            if (found != null) {
                return found;
            }
        }
        return null;
    }

    private static boolean moves(Use use) {
        Node node = use.op().node();
        return node.domain().isEmpty() && MOVES.contains(node.op()) && use.input() == 0;
    }

    private static int mostAt(Value value, Tensor tensor) {
        int most = 0;
        for (Use use : value.uses()) {
            most = Math.max(most, moves(use) ? mostAt(use.op().output(0), tensor) : at(use, tensor));
        }
        return value.uses().isEmpty() && isNumber(tensor.dtype()) ? 1 : most;
    }

    private static int at(Use use, Tensor tensor) {
        Part part = QuantizedOperands.part(use.op().node(), use.input());
        boolean counts = part == Part.VALUES || part == Part.OTHER && isNumber(tensor.dtype());
        return counts ? QuantizedOperands.perElement(use.op().node(), tensor) : 0;
    }

    /** Whether a type is one of weights. Integers of more bits are sizes and indices. */
    private static boolean isNumber(DType dtype) {
        return dtype.isFloat() || dtype.bits() <= 8 && dtype != DType.BOOL;
    }
}
