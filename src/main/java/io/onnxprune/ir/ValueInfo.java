// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.util.List;

/**
 * The declared type of a graph input, output or inner value.
 *
 * @param shape one entry an axis, or null when no shape (or no tensor type) is declared
 * @param serialized the declaration as imported, for what the tool does not interpret; may be empty
 */
@SuppressWarnings("ArrayRecordComponent") // carried through, never compared
public record ValueInfo(String name, DType dtype, List<Extent> shape, byte[] serialized) {
    /** The declared extent of an axis: a number, or -1 with a symbol that may be empty. */
    public record Extent(long size, String symbol) {
        public static Extent of(long size) {
            return new Extent(size, "");
        }

        public boolean isKnown() {
            return size >= 0;
        }
    }

    public ValueInfo {
        shape = shape == null ? null : List.copyOf(shape);
    }

    public ValueInfo withShape(List<Extent> changed) {
        return new ValueInfo(name, dtype, changed, serialized);
    }

    public ValueInfo withName(String changed) {
        return new ValueInfo(changed, dtype, shape, serialized);
    }

    public ValueInfo withDType(DType changed) {
        return new ValueInfo(name, changed, shape, serialized);
    }
}
