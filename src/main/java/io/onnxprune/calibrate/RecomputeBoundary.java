// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayDeque;
import java.util.Collection;
import java.util.Deque;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.Set;

/**
 * The boundary from which a segment can be recomputed after changes to the weights of some of its linear layers. It
 * consists of the values that are computed before these layers and used by them or after them.
 *
 * @param values the values to store
 * @param yields the values for later segments that are computed before the layers
 * @param constants the names of all constants that the values before the layers depend on
 * @param rest the applications from the layers on
 */
record RecomputeBoundary(Set<Value> values, Set<Value> yields, Set<String> constants, Set<Op> rest) {
    /** The boundary of a segment; null if its output does not depend on the layers. */
    static RecomputeBoundary of(Segment segment, DataFlow flow, Collection<Op> layers) {
        Set<Op> rest = new HashSet<>(layers);
        for (Op op : segment.ops()) {
            if (op.inputs().stream().anyMatch(input -> input != null && rest.contains(input.producer()))) {
                rest.add(op);
            }
        }
        if (!rest.contains(segment.output().producer())) {
            return null;
        }
        Set<Op> inside = new HashSet<>(segment.ops());
        Set<Value> values = new LinkedHashSet<>();
        for (Op op : segment.ops()) {
            for (Value input : op.inputs()) {
                if (rest.contains(op) && input != null && inside.contains(input.producer()) && !flow.isLocal(input)) {
                    values.add(input);
                }
            }
        }
        values.removeIf(value -> rest.contains(value.producer()));
        values.remove(segment.input());
        if (values.stream().anyMatch(value -> flow.trace().dtype(value) == DType.UNDEFINED)) {
            return null;
        }
        Set<Value> yields = new LinkedHashSet<>(segment.yielded());
        yields.removeIf(value -> rest.contains(value.producer()));
        return new RecomputeBoundary(values, yields, constantsOf(values, inside), rest);
    }

    private static Set<String> constantsOf(Set<Value> values, Set<Op> inside) {
        Set<String> constants = new HashSet<>();
        Set<Value> seen = new HashSet<>();
        Deque<Value> open = new ArrayDeque<>(values);
        while (!open.isEmpty()) {
            Value value = open.pop();
            if (!seen.add(value)) {
                continue;
            }
            if (value.constant() != null) {
                constants.add(value.name());
            } else if (inside.contains(value.producer())) {
                value.producer().inputs().stream()
                        .filter(input -> input != null)
                        .forEach(open::push);
            }
        }
        return constants;
    }
}
