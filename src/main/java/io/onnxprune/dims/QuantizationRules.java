// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.ArrayList;
import java.util.List;
import java.util.stream.IntStream;

/** Rules of quantised weights. A matrix can be pruned by rows, and along its quantisation axis by blocks. */
final class QuantizationRules {
    private QuantizationRules() {}

    static void register(OperatorRules.Table table) {
        table.contrib(QuantizationRules::matMulNBits, "MatMulNBits");
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
        if (c.in(3) != null) {
            if (c.in(3).length == 1 || !c.in(3)[c.in(3).length - 1].sameSize(b[1])) {
                // Several zero points share a byte: rows can be pruned, single blocks cannot.
                c.pin(b[1], "zero points of several blocks packed into one byte");
                Dim packed = c.fresh(c.in(3).length == 1 ? c.in(3)[0].size(0) / rows.size(0) : c.in(3)[1].size(0));
                c.pin(packed, "packed zero points");
                perBlock(c, c.in(3), rows, packed.isOne() ? Dim.ONE : packed);
            } else {
                perBlock(c, c.in(3), rows, b[1]);
            }
        }
        if (c.in(4) != null) {
            c.pin(c.in(4), "group index of a quantised weight");
            c.pin(k, "group index of a quantised weight");
        }
        ElementwiseRules.align(c, c.in(5), out);
    }

    /** K as blocks × block size, plus a shorter last block when K is not a multiple. */
    private static Dim blocks(RuleContext c, Dim count, long columns, long block) {
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
                List<Dim> factors = new ArrayList<>(List.of(dims[axis]));
                factors.add(c.pinned(block, "a quantisation block is pruned as one unit"));
                c.unify(x[axis], Dim.product(factors));
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
