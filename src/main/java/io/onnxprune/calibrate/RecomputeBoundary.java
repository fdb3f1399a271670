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
 * Where a segment can be taken up again once weights of some of its products have changed: the values that are computed
 * before these products and read by them or after them.
 *
 * @param values what has to be kept
 * @param yields what later segments read of what is computed before the products
 * @param constants the names of all constants that went into what is computed before the products
 * @param rest the applications from the products on
 */
record RecomputeBoundary(Set<Value> values, Set<Value> yields, Set<String> constants, Set<Op> rest) {
    /** The frontier of a segment, or null if its output does not depend on the products. */
    static RecomputeBoundary of(Segment segment, DataFlow flow, Collection<Op> products) {
        Set<Op> rest = new HashSet<>(products);
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
