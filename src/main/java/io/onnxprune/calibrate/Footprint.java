// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.calibrate.Partition.Piece;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * Estimates the memory of a piece of a program from the traced shapes. An axis that differs between the traces is
 * assumed to be a multiple of the batch size, of the length, or of both.
 */
final class Footprint {
    /** Gradients of activations are alive for a while beside the activations themselves. */
    private static final double BACKWARD = 1.4;

    private static final Set<String> VIEWS = Set.of("Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity");

    private final DataFlow flow;
    private final Trace trace;
    private final long[] first;
    private final long[] second;

    Footprint(DataFlow flow, Value tokens) {
        this.flow = flow;
        this.trace = flow.trace();
        this.first = trace.shape(tokens, 0);
        this.second = trace.shape(tokens, 1);
    }

    /** Whether the model accepts only one row at a time. Then the trace found no larger batch. */
    boolean isSingleRow() {
        return first[0] == 1 && second[0] == 1;
    }

    /**
     * Bytes of the activations of a piece over {@code rows} rows of {@code length} tokens, with or without a backward
     * pass.
     */
    long activations(Piece piece, int rows, int length, boolean backward) {
        double bytes = 0;
        double largest = 0;
        for (Op op : piece.ops()) {
            if (!VIEWS.contains(op.node().op())) {
                for (Value value : op.outputs()) {
                    double size = value == null ? 0 : bytes(value, rows, length);
                    bytes += size;
                    largest = Math.max(largest, size);
                }
            }
        }
        // In a forward pass, a value is freed after its last use, so only a few of the largest are alive at once.
        return (long) (backward ? BACKWARD * bytes : Math.min(bytes, 4 * largest));
    }

    /** Bytes of one value. */
    double bytes(Value value, int rows, int length) {
        long[] one = trace.shape(value, 0);
        long[] two = trace.shape(value, 1);
        if (one == null || two == null || one.length != two.length) {
            return 0;
        }
        double elements = 1;
        for (int axis = 0; axis < one.length; axis++) {
            elements *= extent(one[axis], two[axis], rows, length);
        }
        return elements * Math.max(1, trace.dtype(value).bits() / 8);
    }

    private double extent(long one, long two, int rows, int length) {
        if (one == two) {
            return one;
        }
        if (one * second[0] == two * first[0]) {
            return (double) one / first[0] * rows;
        }
        if (one * second[1] == two * first[1]) {
            return (double) one / first[1] * length;
        }
        if (one * second[0] * second[1] == two * first[0] * first[1]) {
            return (double) one / first[0] / first[1] * rows * length;
        }
        // This bounds a sum such as past + length.
        return Math.max((double) one / first[1], (double) two / second[1]) * length;
    }

    /** The constants that a piece uses, directly or through values that it computes only from constants. */
    Set<Value> weights(Piece piece) {
        Set<Value> found = new HashSet<>();
        Set<Value> seen = new HashSet<>();
        Deque<Value> open = new ArrayDeque<>();
        for (Op op : piece.ops()) {
            open.addAll(present(op.inputs()));
        }
        while (!open.isEmpty()) {
            Value value = open.pop();
            if (!seen.add(value) || !flow.isLocal(value)) {
                continue;
            }
            if (value.constant() != null) {
                found.add(value);
            } else if (value.producer() != null) {
                open.addAll(present(value.producer().inputs()));
            }
        }
        return found;
    }

    private static List<Value> present(List<Value> values) {
        List<Value> present = new ArrayList<>(values);
        present.removeIf(value -> value == null);
        return present;
    }

    /** Bytes of weights in use: as they are stored, plus a float32 copy where they are stored in another type. */
    static long weightBytes(Set<Value> weights) {
        long bytes = 0;
        for (Value weight : weights) {
            DType dtype = weight.constant().dtype();
            long stored = dtype.bytes(weight.constant().elements());
            boolean widened = dtype.isFloat() && dtype != DType.FLOAT;
            bytes += stored + (widened ? Float.BYTES * weight.constant().elements() : 0);
        }
        return bytes;
    }
}
