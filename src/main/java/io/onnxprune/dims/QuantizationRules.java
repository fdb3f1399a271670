// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.List;
import java.util.stream.IntStream;

/** Rules of quantised weights. A matrix can be pruned by rows, and along its quantisation axis by blocks. */
final class QuantizationRules {
    private QuantizationRules() {}

    static void register(OperatorRules.Table table) {
        table.contrib(QuantizationRules::matMulNBits, "MatMulNBits");
        table.contrib(QuantizationRules::gatherBlock, "GatherBlockQuantized");
        table.onnx(QuantizationRules::perAxis, "DequantizeLinear", "QuantizeLinear");
        table.contrib(QuantizationRules::perAxis, "DequantizeLinear", "QuantizeLinear");
        table.onnx(QuantizationRules::dynamicQuantize, "DynamicQuantizeLinear");
    }

    /** A[.., K] · dequantised B[N, blocks, bytes], with scales and zero points by row and block. */
    private static void matMulNBits(RuleContext c) {
        long columns = c.node().intAttribute("K", 0);
        long block = c.node().intAttribute("block_size", 32);
        Dim[] a = c.in(0);
        Dim[] b = c.in(1);
        Dim[] out = c.out(0);
        for (int i = 0; i < out.length - 1; i++) {
            c.unifyBroadcast(a[i], out[i]);
        }
        Dim rows = out[out.length - 1];
        c.unifyBroadcast(rows, b[0]);
        c.pin(b[2], "bytes of one quantisation block");
        Dim k = a[a.length - 1];
        c.unifyBroadcast(k, blocks(c, b[1], columns, block));
        c.contraction(k, true);
        c.requireAttribute("K", -1, k);
        c.requireAttribute("N", -1, rows);
        perBlock(c, c.in(2), rows, b[1]);
        Dim[] zeros = c.in(3);
        if (zeros != null) {
            long each = zeros.length == 1 ? zeros[0].size(0) / rows.size(0) : zeros[1].size(0);
            perBlock(c, zeros, rows, each == b[1].size(0) ? b[1] : packedZeros(c, b[1], each));
        }
        if (c.in(4) != null) {
            c.pin(c.in(4), "group index of a quantised weight");
            c.pin(k, "group index of a quantised weight");
        }
        ElementwiseRules.align(c, c.in(5), out);
    }

    /**
     * The bytes of zero points for {@code blocks}, of which several share a byte. They are pruned together, or not at all
     * where the last byte is not full.
     */
    private static Dim packedZeros(RuleContext c, Dim blocks, long bytes) {
        String reason = "zero points of several blocks packed into one byte";
        Dim packed = bytes == 1 ? Dim.ONE : c.fresh(bytes);
        if (blocks.size(0) % bytes == 0 && 8 % (blocks.size(0) / bytes) == 0) {
            c.unify(blocks, Dim.product(List.of(packed, c.pinned(blocks.size(0) / bytes, reason))));
        } else {
            c.pin(blocks, reason);
            c.pin(packed, reason);
        }
        return packed;
    }

    /**
     * Slices of data that are dequantised by blocks along {@code quantize_axis}. A byte holds several integers of the last
     * axis, which must be the quantised one then.
     */
    private static void gatherBlock(RuleContext c) {
        Dim[] data = c.in(0);
        Dim[] scales = c.in(2);
        Dim[] zeros = c.in(3);
        int gathered = RuleContext.axis(c.node().intAttribute("gather_axis", 0), data.length);
        int quantised = RuleContext.axis(c.node().intAttribute("quantize_axis", 1), data.length);
        int each = QuantizedOperands.perElement(c.node(), c.dtype(0));
        if (gathered == quantised || each > 1 && quantised != data.length - 1) {
            OperatorRules.pinEverything(c, "quantised look-up that is not analysed");
            return;
        }
        long block = c.node().intAttribute("block_size", 128);
        c.pin(data[gathered], IndexRules.LOOKED_UP);
        for (int axis = 0; axis < data.length; axis++) {
            Dim out = c.out(0)[axis < gathered ? axis : axis - 1 + c.in(1).length];
            if (axis == quantised) {
                c.unify(out, blocks(c, scales[axis], out.size(0), block));
                c.unify(data[axis], blocks(c, scales[axis], data[axis].size(0), block / each));
            } else {
                c.unifyBroadcast(data[axis], scales[axis]);
                if (axis != gathered) {
                    c.unifyBroadcast(data[axis], out);
                }
            }
            if (zeros != null) {
                boolean packed = axis == quantised && !zeros[axis].sameSize(scales[axis]);
                c.unifyBroadcast(
                        zeros[axis], packed ? packedZeros(c, scales[axis], zeros[axis].size(0)) : scales[axis]);
            }
        }
        for (int i = 0; i < c.in(1).length; i++) {
            c.unifyBroadcast(c.in(1)[i], c.out(0)[gathered + i]);
        }
    }

    /** K as blocks × block size, plus a shorter last block when K is not a multiple. */
    static Dim blocks(RuleContext c, Dim count, long columns, long block) {
        long fullBlocks = columns / block;
        long remainder = columns % block;
        Dim.Atom size = c.pinned(block, "a quantisation block is pruned as one unit");
        if (remainder == 0) {
            return Dim.product(List.of(count, size));
        }
        Dim.Atom last = c.pinned(remainder, "the last, shorter quantisation block");
        if (fullBlocks == 0) {
            return last;
        }
        List<Dim> parts = c.cutInto(count, List.of(fullBlocks, 1L));
        if (parts == null) {
            return c.pinned(columns, "quantisation blocks that could not be told apart");
        }
        c.pin(parts.get(1), "the last, shorter quantisation block");
        return Dim.sum(List.of(Dim.product(List.of(parts.get(0), size)), last));
    }

    private static void perBlock(RuleContext c, Dim[] dims, Dim rows, Dim blocks) {
        if (dims.length == 1) {
            c.unify(dims[0], Dim.product(List.of(rows, blocks)));
        } else {
            c.unifyBroadcast(dims[0], rows);
            c.unifyBroadcast(dims[1], blocks);
        }
    }

    /** Scale and zero point are scalars, vectors along an axis, or blocked along it. */
    private static void perAxis(RuleContext c) {
        Dim[] x = c.in(0);
        c.unifyAll(x, c.out(0));
        int axis = x.length == 0 ? 0 : RuleContext.axis(c.node().intAttribute("axis", 1), Math.max(2, x.length));
        long block = c.node().intAttribute("block_size", 0);
        for (int i = 1; i <= 2; i++) {
            Dim[] dims = c.in(i);
            if (dims == null || dims.length == 0) {
                continue;
            }
            if (dims.length == 1) {
                c.unifyBroadcast(dims[0], x[Math.min(axis, x.length - 1)]);
            } else {
                if (block > 0) {
                    c.unify(x[axis], blocks(c, dims[axis], x[axis].size(0), block));
                } else {
                    c.unifyBroadcast(dims[axis], x[axis]);
                }
                for (int other = 0; other < dims.length; other++) {
                    if (other != axis) {
                        c.unifyBroadcast(dims[other], x[other]);
                    }
                }
            }
        }
    }

    private static void dynamicQuantize(RuleContext c) {
        c.unifyAll(c.in(0), c.out(0));
        // The quantisation range is a statistic over all elements, like a mean: removed elements no longer widen it.
        c.mean(0, IntStream.range(0, c.in(0).length).boxed().toList());
    }
}
