// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/**
 * Decompositions of operators with quantised weights: these are unpacked and dequantised at run time, so that
 * gradients reach their scales.
 */
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
     * along K, W = (q − zero) · scale. B {@code [N, blocks, bytes]} holds integers of {@code bits} bits, lowest first.
     * Zero points are packed in the same way with byte-aligned rows, or have the type of the scales; their default is
     * half the range.
     */
    private static boolean matMulNBits(RewriteContext c) {
        long bits = c.node().intAttribute("bits", 4);
        if (bits != 2 && bits != 4 && bits != 8 || c.node().intAttribute("weight_prepacked", 0) != 0) {
            return false;
        }
        long rows = c.node().intAttribute("N", 0);
        long columns = c.node().intAttribute("K", 0);
        long block = c.node().intAttribute("block_size", 32);
        long blocks = (columns + block - 1) / block;
        String scales = c.reshape(c.in(2), rows, blocks, 1);
        String zeros = c.scalar(1 << ((int) bits - 1));
        if (c.has(3)) {
            zeros = c.in(3);
            if (c.dtype(3) == DType.UINT8) {
                String unpacked = unpack(c, zeros, bits, rows, -1);
                zeros = c.cast(blocks * bits % 8 == 0 ? unpacked : c.slice(unpacked, 1, 0, blocks), DType.FLOAT);
            }
            zeros = c.reshape(zeros, rows, blocks, 1);
        }
        String numbers = c.cast(unpack(c, c.in(1), bits, rows, blocks, block), DType.FLOAT);
        String weight;
        if (c.has(4)) {
            // The group index gives a group for each column, instead of the block that contains it.
            String flat = c.reshape(numbers, rows, blocks * block);
            numbers = blocks * block == columns ? flat : c.slice(flat, 1, 0, columns);
            scales = c.gather(c.reshape(scales, rows, blocks), c.in(4), 1);
            zeros = c.has(3) ? c.gather(c.reshape(zeros, rows, blocks), c.in(4), 1) : zeros;
            weight = c.add("Mul", c.add("Sub", numbers, zeros), scales);
        } else {
            String values = c.add("Mul", c.add("Sub", numbers, zeros), scales);
            String flat = c.reshape(values, rows, blocks * block);
            weight = blocks * block == columns ? flat : c.slice(flat, 1, 0, columns);
        }
        c.result(0, c.plus(c.add("MatMul", c.in(0), c.transpose(weight, 1, 0)), c.in(5)));
        return true;
    }

    /** Unpacks integers of {@code bits} bits from bytes, lowest first, into unsigned bytes of the given shape. */
    static String unpack(RewriteContext c, String bytes, long bits, long... shape) {
        if (bits == 8) {
            return c.reshape(bytes, shape);
        }
        int each = (int) (8 / bits);
        byte[] shifts = new byte[each];
        for (int i = 0; i < each; i++) {
            shifts[i] = (byte) (i * bits);
        }
        String shift = c.shared("shifts " + bits, () -> c.constant(bytes(new long[] {each}, shifts)));
        String mask = c.shared("mask " + bits, () -> c.constant(bytes(new long[0], (byte) ((1 << bits) - 1))));
        String shifted = c.add(
                "BitShift", List.of(c.unsqueeze(bytes, -1), shift), Map.of("direction", new Attribute.Text("RIGHT")));
        return c.reshape(c.add("BitwiseAnd", shifted, mask), shape);
    }

    private static Tensor bytes(long[] shape, byte... values) {
        return Tensor.of(DType.UINT8, shape, io.onnxprune.ir.Bytes.of(java.nio.ByteBuffer.wrap(values)));
    }

    /**
     * com.microsoft.GatherBlockQuantized (data, indices, scales, zero points): slices of quantised data, dequantised
     * by blocks of {@code block_size} along {@code quantize_axis}. A byte holds several integers of the last axis. The
     * default zero point is half the range. Data of 4-bit types, whose default is 0, is not decomposed.
     */
    private static boolean gatherBlock(RewriteContext c) {
        int rank = c.rank(0);
        int gatherAxis = Math.floorMod((int) c.node().intAttribute("gather_axis", 0), rank);
        int axis = Math.floorMod((int) c.node().intAttribute("quantize_axis", 1), rank);
        long bits = c.node().intAttribute("bits", 4);
        boolean packed = c.dtype(0) == DType.UINT8;
        if (gatherAxis != 0 || axis != rank - 1 || !packed) {
            return false;
        }
        long block = c.node().intAttribute("block_size", 128);
        long width = c.extent(0, -1) * (8 / bits);
        long blocks = c.extent(2, -1);
        if (width != blocks * block) {
            return false;
        }
        String data = c.gather(c.in(0), c.in(1), 0);
        long[] shape = new long[c.rank(1) + rank - 1];
        shape[shape.length - 1] = width;
        String numbers = c.cast(unpack(c, data, bits, shape), DType.FLOAT);
        String zeros = c.scalar(1 << ((int) bits - 1));
        if (c.has(3)) {
            long[] each = shape.clone();
            each[each.length - 1] = c.extent(3, -1) * (8 / bits);
            String unpacked = unpack(c, c.gather(c.in(3), c.in(1), 0), bits, each);
            zeros = c.cast(each[each.length - 1] == blocks ? unpacked : c.slice(unpacked, -1, 0, blocks), DType.FLOAT);
            zeros = c.unsqueeze(zeros, -1);
        }
        long[] blocked = Arrays.copyOf(shape, shape.length + 1);
        blocked[shape.length - 1] = blocks;
        blocked[shape.length] = block;
        String scales = c.unsqueeze(c.gather(c.in(2), c.in(1), 0), -1);
        String values = c.add("Mul", c.add("Sub", c.reshape(numbers, blocked), zeros), scales);
        c.result(0, c.reshape(values, shape));
        return true;
    }

    /**
     * DequantizeLinear (x, scale, zero point): (x − zero) · scale. Scale and zero point are scalars, vectors along
     * {@code axis}, or have one element for {@code block_size} neighbours along it.
     */
    private static boolean dequantize(RewriteContext c) {
        if (c.operand(0).constant() == null) {
            return false;
        }
        int rank = c.rank(0);
        int axis = rank == 0 ? 0 : Math.floorMod((int) c.node().intAttribute("axis", 1), Math.max(rank, 2));
        long block = c.node().intAttribute("block_size", 0);
        int scaleRank = c.rank(1);
        long[] shape = new long[rank];
        Arrays.fill(shape, 1);
        String x = c.cast(c.in(0), DType.FLOAT);
        String scale = c.in(1);
        String zero = c.has(2) ? c.cast(c.in(2), DType.FLOAT) : "";
        if (block > 0 && scaleRank == rank) {
            long[] full = c.shape(0, 0);
            if (full[axis] % block != 0) {
                return false;
            }
            long[] blocked = new long[rank + 1];
            System.arraycopy(full, 0, blocked, 0, axis);
            blocked[axis] = full[axis] / block;
            blocked[axis + 1] = block;
            System.arraycopy(full, axis + 1, blocked, axis + 2, rank - axis - 1);
            x = c.reshape(x, blocked);
            scale = c.unsqueeze(scale, axis + 1);
            zero = zero.isEmpty() ? zero : c.unsqueeze(zero, axis + 1);
            c.result(0, c.reshape(dequantized(c, x, scale, zero), full));
            return true;
        }
        if (scaleRank == 1 && rank > 1 && axis < rank - 1) {
            shape[axis] = -1;
            long[] along = Arrays.copyOfRange(shape, axis, rank);
            scale = c.reshape(scale, along);
            zero = zero.isEmpty() ? zero : c.reshape(zero, along);
        }
        c.result(0, dequantized(c, x, scale, zero));
        return true;
    }

    private static String dequantized(RewriteContext c, String x, String scale, String zero) {
        return c.add("Mul", zero.isEmpty() ? x : c.add("Sub", x, zero), scale);
    }
}
