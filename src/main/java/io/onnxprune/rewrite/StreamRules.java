// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.dims.Dim;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.rewrite.StreamBasis.Frame;
import io.onnxprune.rewrite.StreamBasis.Kind;
import java.util.Arrays;

/** What operators do to the basis of the residual stream. An operator without a rule keeps the stream as it is. */
final class StreamRules {
    private StreamRules() {}

    static void apply(StreamBasis b, Op op) {
        if (StreamBasis.isSkip(op)) {
            skip(b, op);
            return;
        }
        switch (op.node().op()) {
            case "MatMul", "Gemm", "FusedMatMul" -> product(b, op);
            case "Add" -> add(b, op);
            case "Sub" -> subtract(b, op);
            case "Mul", "Div" -> scale(b, op);
            case "Pow" -> power(b, op);
            case "ReduceMean", "ReduceSum", "ReduceL2", "ReduceSumSquare" -> reduce(b, op);
            case "LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization" -> norm(b, op);
            default -> {
                if (!StreamBasis.isLayout(op)) {
                    throw b.unknown(op);
                }
                layout(b, op);
            }
        }
    }

    /** A table that tokens select from writes to the stream; any other movement keeps the basis. */
    private static void layout(StreamBasis b, Op op) {
        Frame frame = b.frame(op, 0);
        if (op.node().is("Concat")) {
            for (int i = 0; i < op.inputs().size(); i++) {
                b.plain(op, i);
            }
            frame = b.axis(b.analysis().dims(op.output(0))) < 0 ? null : frame;
        } else if (frame == null) {
            int axis = b.axis(b.analysis().operand(op, 0));
            b.place(Kind.WRITE, op, 0, axis, null);
            frame = Frame.PLAIN;
        }
        if (frame == null) {
            throw b.unknown(op);
        }
        for (int i = 0; i < op.outputs().size(); i++) {
            if (op.node().is("Cast")
                    && !b.analysis().trace().dtype(op.output(0)).isFloat()) {
                throw b.unknown(op);
            }
            if (op.output(i) != null && b.analysis().trace().dtype(op.output(i)).isFloat()) {
                b.yields(op, i, frame);
            }
        }
    }

    private static void product(StreamBasis b, Op op) {
        Dim[] left = b.analysis().operand(op, 0);
        Dim[] right = b.analysis().operand(op, 1);
        Dim[] out = b.analysis().dims(op.output(0));
        boolean transA = op.node().intAttribute("transA", 0) != 0 || op.node().intAttribute("transBatchA", 0) != 0;
        boolean transB = op.node().intAttribute("transB", 0) != 0;
        if (transA || op.node().intAttribute("transBatchB", 0) != 0) {
            throw b.because(op, "transposes its activations");
        }
        boolean reads = b.axis(left) == left.length - 1;
        boolean writes = b.axis(out) == out.length - 1 && out.length > 0;
        if (b.frame(op, 1) != null) {
            activations(b, op, reads, transB);
            return;
        }
        if (b.axis(left) != -1 && !reads || b.frame(op, 0) == null && reads || b.axis(out) != -1 && !writes) {
            throw b.because(op, "multiplies this width in a form that is not known");
        }
        int rows = right.length - (transB ? 1 : 2);
        if (reads) {
            Frame frame = b.frame(op, 0);
            b.readsMean(op, frame);
            b.place(Kind.READ, op, 1, rows, frame);
        }
        if (writes) {
            b.place(Kind.WRITE, op, 1, 2 * right.length - 3 - rows, null);
            if (op.input(2) != null) {
                b.place(Kind.WRITE, op, 2, b.axis(b.analysis().operand(op, 2)), null);
            }
            b.yields(op, 0, Frame.PLAIN);
        }
    }

    /** Two values of the stream may be compared; weights of positions may combine vectors. */
    private static void activations(StreamBasis b, Op op, boolean reads, boolean transB) {
        Frame right = b.plain(op, 1);
        if (reads) {
            b.readsMean(op, b.plain(op, 0));
            b.readsMean(op, right);
            if (b.axis(b.analysis().dims(op.output(0))) != -1) {
                throw b.unknown(op);
            }
        } else if (transB || b.axis(b.analysis().operand(op, 0)) != -1) {
            throw b.unknown(op);
        } else {
            b.yields(op, 0, Frame.PLAIN);
        }
    }

    private static void add(StreamBasis b, Op op) {
        Frame one = b.frame(op, 0);
        Frame other = b.frame(op, 1);
        if (one != null && other != null) {
            b.plain(op, 0);
            b.plain(op, 1);
            b.yields(op, 0, new Frame(null, null, false, one.centred() && other.centred()));
            return;
        }
        int constant = one == null ? 0 : 1;
        Frame frame = one == null ? other : one;
        Dim[] dims = b.analysis().operand(op, constant);
        if (frame == null || b.axis(dims) == -1) {
            throw b.because(op, "adds one number to all channels");
        }
        if (frame.isPlain() && !frame.normalised()) {
            b.place(Kind.WRITE, op, constant, b.axis(dims), null);
            b.yields(op, 0, new Frame(null, null, false, false));
            return;
        }
        double[] term = vector(b, op, constant);
        double[] shift = frame.shift() == null ? term : sum(frame.shift(), term);
        b.place(Kind.SHIFT, op, constant, b.axis(dims), null);
        b.yields(op, 0, new Frame(frame.scale(), shift, true, frame.centred()));
    }

    private static double[] sum(double[] a, double[] c) {
        double[] sum = a.clone();
        for (int i = 0; i < sum.length; i++) {
            sum[i] += c[i];
        }
        return sum;
    }

    private static double[] vector(StreamBasis b, Op op, int input) {
        Tensor tensor = op.input(input) == null ? null : op.input(input).constant();
        if (tensor == null
                || !tensor.dtype().isFloat()
                || tensor.elements() != b.hidden().size()) {
            throw b.because(op, "has factors or terms of channels that are not a constant vector");
        }
        return StreamBasis.vector(tensor);
    }

    private static void subtract(StreamBasis b, Op op) {
        if (op.input(0).equals(b.means().get(op.input(1)))) {
            Frame frame = b.plain(op, 0);
            b.centres(op, op.input(0));
            b.yields(op, 0, new Frame(null, null, frame.normalised(), true));
            return;
        }
        Frame one = b.plain(op, 0);
        Frame other = b.plain(op, 1);
        b.yields(op, 0, new Frame(null, null, false, one.centred() && other.centred()));
    }

    private static void scale(StreamBasis b, Op op) {
        boolean divides = op.node().is("Div");
        Frame one = b.frame(op, 0);
        Frame other = b.frame(op, 1);
        if (one != null && other != null) {
            if (divides || !op.input(0).equals(op.input(1))) {
                throw b.because(op, "multiplies channels with each other");
            }
            b.plain(op, 0);
            b.squares().put(op.output(0), op.input(0));
            return;
        }
        int factor = one == null ? 0 : 1;
        Frame frame = one == null ? other : one;
        if (frame == null || divides && one == null) {
            throw b.unknown(op);
        }
        int axis = b.axis(b.analysis().operand(op, factor));
        if (axis == -1) {
            if (frame.shift() != null) {
                throw b.because(op, "scales terms of channels");
            }
            b.yields(op, 0, new Frame(frame.scale(), null, frame.normalised() || divides, frame.centred()));
            return;
        }
        if (divides) {
            throw b.because(op, "divides by numbers of channels");
        }
        b.place(Kind.SCALE, op, factor, axis, null);
        b.yields(op, 0, scaled(frame, vector(b, op, factor)));
    }

    private static Frame scaled(Frame frame, double[] factors) {
        if (Arrays.stream(factors).allMatch(value -> value == 1)) {
            return new Frame(frame.scale(), frame.shift(), true, frame.centred());
        }
        double[] scale = frame.scale() == null ? factors : times(frame.scale(), factors);
        double[] shift = frame.shift() == null ? null : times(frame.shift(), factors);
        return new Frame(scale, shift, true, frame.centred());
    }

    private static double[] times(double[] a, double[] c) {
        double[] product = a.clone();
        for (int i = 0; i < product.length; i++) {
            product[i] *= c[i];
        }
        return product;
    }

    private static void power(StreamBasis b, Op op) {
        Tensor exponent = op.input(1) == null ? null : op.input(1).constant();
        boolean square = exponent != null
                && exponent.dtype().isFloat()
                && exponent.elements() == 1
                && exponent.toFloats()[0] == 2;
        if (!square || b.frame(op, 0) == null) {
            throw b.unknown(op);
        }
        b.plain(op, 0);
        b.squares().put(op.output(0), op.input(0));
    }

    /** Lengths do not depend on the basis; means do, and must be subtracted. */
    private static void reduce(StreamBasis b, Op op) {
        boolean ofSquares = b.squares().containsKey(op.input(0));
        boolean length = op.node().is("ReduceL2") || op.node().is("ReduceSumSquare");
        Frame frame = b.frame(op, 0);
        if (b.axis(b.analysis().dims(op.output(0))) != -1) {
            throw b.unknown(op);
        }
        if (ofSquares) {
            Frame source = b.frame(b.squares().get(op.input(0)));
            b.readsMean(op, source);
        } else if (frame != null && length) {
            b.readsMean(op, b.plain(op, 0));
        } else if (frame != null && op.node().is("ReduceMean")) {
            b.plain(op, 0);
            b.means().put(op.output(0), op.input(0));
        } else {
            throw b.unknown(op);
        }
        if (b.analysis().operand(op, 0).length != b.analysis().dims(op.output(0)).length) {
            throw b.because(op, "drops the axis");
        }
    }

    private static void norm(StreamBasis b, Op op) {
        Dim[] x = b.analysis().operand(op, 0);
        long axis = op.node().intAttribute("axis", -1);
        if (Math.floorMod(axis, x.length) != x.length - 1 || b.axis(x) != x.length - 1) {
            throw b.because(op, "normalises other axes too");
        }
        Frame frame = b.plain(op, 0);
        boolean centred = op.node().is("LayerNormalization");
        if (centred) {
            b.centres(op, op.input(0));
        } else {
            b.readsMean(op, frame);
        }
        boolean statistics = op.outputs().stream()
                .skip(1)
                .anyMatch(value -> value != null && !value.uses().isEmpty());
        if (statistics) {
            throw b.because(op, "yields its statistics");
        }
        weighted(b, op, 1, centred ? 2 : -1, centred || frame.centred());
    }

    private static void weighted(StreamBasis b, Op op, int scale, int shift, boolean centred) {
        Frame frame = new Frame(null, null, true, centred);
        if (op.input(scale) != null) {
            b.place(Kind.SCALE, op, scale, 0, null);
            frame = scaled(frame, vector(b, op, scale));
        }
        if (shift >= 0 && op.input(shift) != null) {
            b.place(Kind.SHIFT, op, shift, 0, null);
            frame = new Frame(frame.scale(), vector(b, op, shift), true, centred);
        }
        b.yields(op, 0, frame);
    }

    private static void skip(StreamBasis b, Op op) {
        boolean centred = op.node().is("SkipLayerNormalization");
        int bias = centred ? 4 : 3;
        Frame sum = new Frame(
                null, null, false, b.plain(op, 0).centred() && b.plain(op, 1).centred());
        if (op.input(bias) != null) {
            b.place(Kind.WRITE, op, bias, 0, null);
        }
        for (int i = 1; i < 3; i++) {
            Value value = op.output(i);
            if (value != null && !value.uses().isEmpty()) {
                throw b.because(op, "yields its statistics");
            }
        }
        if (centred) {
            b.centres(op, null);
        } else {
            b.readsMean(op, sum);
        }
        weighted(b, op, 2, centred ? 3 : -1, centred);
        b.yields(op, 3, sum);
    }
}
