// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.nio.ByteBuffer;

/**
 * Elements of less than a byte, such as int4, as whole bytes and back. ONNX stores them one after another without gaps,
 * the first one in the lowest bits (TensorProto in the ONNX specification).
 */
final class PackedBytes {
    private PackedBytes() {}

    /** One byte for each of the elements that {@code packed} stores in {@code bits} bits each. */
    static Bytes unpacked(Bytes packed, int bits, long elements) {
        return new Unpacked(packed, bits, elements);
    }

    /** Elements of one byte each, stored in {@code bits} bits each. */
    static Bytes packed(Bytes elements, int bits) {
        return new Packed(elements, bits);
    }

    private record Unpacked(Bytes packed, int bits, long elements) implements Bytes {
        @Override
        public long size() {
            return elements;
        }

        @Override
        public void read(long offset, ByteBuffer target) {
            int each = 8 / bits;
            int count = target.remaining();
            long first = offset / each;
            byte[] source = new byte[Math.toIntExact((offset + count + each - 1) / each - first)];
            packed.read(first, ByteBuffer.wrap(source));
            int mask = (1 << bits) - 1;
            for (int i = 0; i < count; i++) {
                long element = offset + i;
                int shift = (int) (element % each) * bits;
                target.put((byte) (source[(int) (element / each - first)] >> shift & mask));
            }
        }
    }

    private record Packed(Bytes elements, int bits) implements Bytes {
        @Override
        public long size() {
            return (elements.size() * bits + 7) / 8;
        }

        @Override
        public void read(long offset, ByteBuffer target) {
            int each = 8 / bits;
            long first = offset * each;
            int count = target.remaining();
            byte[] source = new byte[(int) Math.max(0, Math.min((long) count * each, elements.size() - first))];
            elements.read(first, ByteBuffer.wrap(source));
            byte[] bytes = new byte[count];
            for (int i = 0; i < source.length; i++) {
                bytes[i / each] |= (byte) (source[i] << i % each * bits);
            }
            target.put(bytes);
        }
    }
}
