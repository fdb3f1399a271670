// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/** Quantised weights: unpacked and dequantised at run time, so that a gradient reaches their scales. */
final class QuantizedDecompositions {
    private QuantizedDecompositions() {}

    static void register(Decompositions.Table table) {
        table.contrib(QuantizedDecompositions::matMulNBits, "MatMulNBits");
        table.contrib(QuantizedDecompositions::gatherBlock, "GatherBlockQuantized");
        table.contrib(QuantizedDecompositions::dequantize, "DequantizeLinear");
        table.onnx(QuantizedDecompositions::dequantize, "DequantizeLinear");
    }

    /**
     * com.microsoft.MatMulNBits (A, B, scales, zero points, group index, bias): A · Wᵀ with W {@code [N, K]} in blocks
     * along K, (q − zero) · scale. B {@code [N, blocks, bytes]} holds {@code bits} a number, lowest first; zero points are
     * packed alike in rows of whole bytes, or are numbers of the type of the scales, and default to half the range.
     */
    private static boolean matMulNBits(RewriteContext s) {
        long bits = s.node().intAttribute("bits", 4);
        if (bits != 2 && bits != 4 && bits != 8 || s.node().intAttribute("weight_prepacked", 0) != 0) {
            return false;
        }
        long rows = s.node().intAttribute("N", 0);
        long columns = s.node().intAttribute("K", 0);
        long block = s.node().intAttribute("block_size", 32);
        long blocks = (columns + block - 1) / block;
        String scales = s.reshape(s.in(2), rows, blocks, 1);
        String zeros = s.scalar(1 << ((int) bits - 1));
        if (s.has(3)) {
            zeros = s.in(3);
            if (s.dtype(3) == DType.UINT8) {
                String unpacked = unpack(s, zeros, bits, rows, -1);
                zeros = s.cast(blocks * bits % 8 == 0 ? unpacked : s.slice(unpacked, 1, 0, blocks), DType.FLOAT);
            }
            zeros = s.reshape(zeros, rows, blocks, 1);
        }
        String numbers = s.cast(unpack(s, s.in(1), bits, rows, blocks, block), DType.FLOAT);
        String weight;
        if (s.has(4)) {
            // Every column names its group instead of belonging to the block that it is in.
            String flat = s.reshape(numbers, rows, blocks * block);
            numbers = blocks * block == columns ? flat : s.slice(flat, 1, 0, columns);
            scales = s.gather(s.reshape(scales, rows, blocks), s.in(4), 1);
            zeros = s.has(3) ? s.gather(s.reshape(zeros, rows, blocks), s.in(4), 1) : zeros;
            weight = s.add("Mul", s.add("Sub", numbers, zeros), scales);
        } else {
            String values = s.add("Mul", s.add("Sub", numbers, zeros), scales);
            String flat = s.reshape(values, rows, blocks * block);
            weight = blocks * block == columns ? flat : s.slice(flat, 1, 0, columns);
        }
        s.result(0, s.plus(s.add("MatMul", s.in(0), s.transpose(weight, 1, 0)), s.in(5)));
        return true;
    }

    /** The numbers of {@code bits} in bytes, lowest first, under the given shape; still unsigned bytes. */
    private static String unpack(RewriteContext s, String bytes, long bits, long... shape) {
        if (bits == 8) {
            return s.reshape(bytes, shape);
        }
        int each = (int) (8 / bits);
        byte[] shifts = new byte[each];
        for (int i = 0; i < each; i++) {
            shifts[i] = (byte) (i * bits);
        }
        String shift = s.shared("shifts " + bits, () -> s.constant(bytes(new long[] {each}, shifts)));
        String mask = s.shared("mask " + bits, () -> s.constant(bytes(new long[0], (byte) ((1 << bits) - 1))));
        String shifted = s.add(
                "BitShift", List.of(s.unsqueeze(bytes, -1), shift), Map.of("direction", new Attribute.Text("RIGHT")));
        return s.reshape(s.add("BitwiseAnd", shifted, mask), shape);
    }

    private static Tensor bytes(long[] shape, byte... values) {
        return Tensor.of(DType.UINT8, shape, io.onnxprune.ir.Bytes.of(java.nio.ByteBuffer.wrap(values)));
    }

    /**
     * com.microsoft.GatherBlockQuantized (data, indices, scales, zero points): the slices of quantised data that the
     * indices name, dequantised by blocks of {@code block_size} along {@code quantize_axis}. Bytes hold several numbers of
     * the last axis; without zero points their zero is half the range. Data of 4-bit types has 0 for that.
     */
    private static boolean gatherBlock(RewriteContext s) {
        int rank = s.rank(0);
        int gatherAxis = Math.floorMod((int) s.node().intAttribute("gather_axis", 0), rank);
        int axis = Math.floorMod((int) s.node().intAttribute("quantize_axis", 1), rank);
        long bits = s.node().intAttribute("bits", 4);
        boolean packed = s.dtype(0) == DType.UINT8;
        if (gatherAxis != 0 || axis != rank - 1 || !packed) {
            return false;
        }
        long block = s.node().intAttribute("block_size", 128);
        long width = s.extent(0, -1) * (8 / bits);
        long blocks = s.extent(2, -1);
        if (width != blocks * block) {
            return false;
        }
        String data = s.gather(s.in(0), s.in(1), 0);
        long[] shape = new long[s.rank(1) + rank - 1];
        shape[shape.length - 1] = width;
        String numbers = s.cast(unpack(s, data, bits, shape), DType.FLOAT);
        String zeros = s.scalar(1 << ((int) bits - 1));
        if (s.has(3)) {
            long[] each = shape.clone();
            each[each.length - 1] = s.extent(3, -1) * (8 / bits);
            String unpacked = unpack(s, s.gather(s.in(3), s.in(1), 0), bits, each);
            zeros = s.cast(each[each.length - 1] == blocks ? unpacked : s.slice(unpacked, -1, 0, blocks), DType.FLOAT);
            zeros = s.unsqueeze(zeros, -1);
        }
        long[] blocked = Arrays.copyOf(shape, shape.length + 1);
        blocked[shape.length - 1] = blocks;
        blocked[shape.length] = block;
        String scales = s.unsqueeze(s.gather(s.in(2), s.in(1), 0), -1);
        String values = s.add("Mul", s.add("Sub", s.reshape(numbers, blocked), zeros), scales);
        s.result(0, s.reshape(values, shape));
        return true;
    }

    /**
     * DequantizeLinear (x, scale, zero point): (x − zero) · scale; scale and zero point are scalars, vectors along
     * {@code axis}, or have one element for {@code block_size} neighbours along it.
     */
    private static boolean dequantize(RewriteContext s) {
        if (s.operand(0).constant() == null) {
            return false;
        }
        int rank = s.rank(0);
        int axis = rank == 0 ? 0 : Math.floorMod((int) s.node().intAttribute("axis", 1), Math.max(rank, 2));
        long block = s.node().intAttribute("block_size", 0);
        int scaleRank = s.rank(1);
        long[] shape = new long[rank];
        Arrays.fill(shape, 1);
        String x = s.cast(s.in(0), DType.FLOAT);
        String scale = s.in(1);
        String zero = s.has(2) ? s.cast(s.in(2), DType.FLOAT) : "";
        if (block > 0 && scaleRank == rank) {
            long[] full = s.shape(0, 0);
            if (full[axis] % block != 0) {
                return false;
            }
            long[] blocked = new long[rank + 1];
            System.arraycopy(full, 0, blocked, 0, axis);
            blocked[axis] = full[axis] / block;
            blocked[axis + 1] = block;
            System.arraycopy(full, axis + 1, blocked, axis + 2, rank - axis - 1);
            x = s.reshape(x, blocked);
            scale = s.unsqueeze(scale, axis + 1);
            zero = zero.isEmpty() ? zero : s.unsqueeze(zero, axis + 1);
            s.result(0, s.reshape(dequantized(s, x, scale, zero), full));
            return true;
        }
        if (scaleRank == 1 && rank > 1 && axis < rank - 1) {
            shape[axis] = -1;
            long[] along = Arrays.copyOfRange(shape, axis, rank);
            scale = s.reshape(scale, along);
            zero = zero.isEmpty() ? zero : s.reshape(zero, along);
        }
        s.result(0, dequantized(s, x, scale, zero));
        return true;
    }

    private static String dequantized(RewriteContext s, String x, String scale, String zero) {
        return s.add("Mul", zero.isEmpty() ? x : s.add("Sub", x, zero), scale);
    }
}
