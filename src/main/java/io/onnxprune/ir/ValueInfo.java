// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.util.List;

/**
 * The declared type of a graph input, output or inner value (ValueInfoProto).
 *
 * @param shape one extent for each axis; null when no shape or no tensor type is declared
 * @param serialized the imported ValueInfoProto, for the fields that are not interpreted; may be empty
 */
@SuppressWarnings("ArrayRecordComponent") // carried through, never compared
public record ValueInfo(String name, DType dtype, List<Extent> shape, byte[] serialized) {
    /**
     * The declared extent of an axis.
     *
     * @param size the extent; -1 when it is not a number
     * @param symbol name of a symbolic extent; may be empty
     */
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
