// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.ir.DType;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Consumer;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Every operator with a derivative, compared with central differences. */
@Tag("ort")
class OperatorGradientTest {
    private static final List<Case> CASES = new ArrayList<>();

    private record Case(String name, DType dtype, Consumer<GradientCheck> body) {
        @Override
        public String toString() {
            return name;
        }
    }

    private static void float64(String name, Consumer<GradientCheck> body) {
        CASES.add(new Case(name, DType.DOUBLE, body));
    }

    /** A case for operators without a float64 kernel in ONNX Runtime. */
    private static void float32(String name, Consumer<GradientCheck> body) {
        CASES.add(new Case(name, DType.FLOAT, body));
    }

    static Stream<Case> cases() {
        CASES.clear();
        unary();
        broadcast();
        reductions();
        products();
        convolutions();
        einsums();
        normalizations();
        layout();
        slices();
        indices();
        return CASES.stream();
    }

    @ParameterizedTest
    @MethodSource("cases")
    void gradientsAgreeWithDifferences(Case tested) {
        tested.body().accept(new GradientCheck(tested.dtype(), tested.name().hashCode()));
    }

    private static void unary() {
        for (String op : List.of("Neg", "Reciprocal", "Exp", "Abs", "Tanh", "Sigmoid", "Relu")) {
            float64(op, c -> c.verify(c.node(op, c.rows(3))));
        }
        for (String op : List.of("Sqrt", "Log")) {
            float64(op, c -> c.verify(c.node(op, c.positiveRows(3))));
        }
        for (String op :
                List.of("Sin", "Cos", "Erf", "LeakyRelu", "Elu", "Softplus", "Softsign", "Mish", "Gelu", "HardSwish")) {
            float32(op, c -> c.verify(c.node(op, c.rows(3))));
        }
        float32("LeakyRelu slope", c -> c.verify(c.with("alpha", 0.3f).node("LeakyRelu", c.rows(3))));
        float32("Elu scale", c -> c.verify(c.with("alpha", 0.7f).node("Elu", c.rows(3))));
        float32("Gelu tanh", c -> c.verify(c.with("approximate", "tanh").node("Gelu", c.rows(3))));
        float32(
                "HardSigmoid",
                c -> c.verify(c.with("alpha", 0.9f).with("beta", 0.4f).node("HardSigmoid", c.rows(3))));
        float32("HardSwish far", c -> {
            String stretched = c.node("Mul", c.rows(4), c.constant(3.2));
            c.verify(c.node("HardSwish", stretched));
        });
    }

    private static void broadcast() {
        for (String op : List.of("Add", "Sub", "Mul", "Div")) {
            float64(op + " same", c -> c.verify(c.node(op, c.rows(3), c.rows(3))));
            float64(op + " bias", c -> c.verify(c.node(op, c.rows(3), c.weight(3))));
            float64(op + " left", c -> c.verify(c.node(op, c.weight(1, 3), c.rows(3))));
            float64(op + " inner one", c -> c.verify(c.node(op, c.rows(3, 1), c.rows(1, 4))));
            float64(op + " ones", c -> c.verify(c.node(op, c.rows(3), c.weight(1, 1, 1, 1))));
            float64(op + " scalar", c -> c.verify(c.node(op, c.rows(3), c.weight())));
            float64(op + " itself", c -> {
                String x = c.rows(3);
                c.verify(c.node(op, x, x));
            });
        }
        float64("Sum", c -> c.verify(c.node("Sum", c.rows(3), c.weight(3), c.weight(1, 1, 1))));
        float32("Mean", c -> c.verify(c.node("Mean", c.rows(3), c.weight(3), c.weight())));
        for (String op : List.of("Min", "Max")) {
            float64(op, c -> c.verify(c.node(op, c.rows(3), c.weight(3), c.weight())));
        }
        float64("Pow", c -> c.verify(c.node("Pow", c.positiveRows(3), c.weight(3))));
        for (double exponent : new double[] {2, 3, 0.5, -0.5, 1, 1.7, -2}) {
            float64("Pow " + exponent, c -> c.verify(c.node("Pow", c.positiveRows(3), c.constant(exponent))));
        }
        float64("Pow integer", c -> c.verify(c.node("Pow", c.rows(3), c.ints(2, 3, 4))));
        float64("Where", c -> {
            String x = c.rows(3);
            String condition = c.node("Greater", x, c.constant(0));
            c.verifyReached(c.node("Where", condition, c.rows(3), c.weight(1, 3)));
        });
        float64("Where broadcast by its condition", c -> {
            String condition = c.node("Greater", c.rows(3, 4), c.constant(0));
            c.verifyReached(c.node("Where", condition, c.rows(3, 1), c.weight()));
        });
        float64("Clip", c -> c.verify(c.node("Clip", c.rows(3), c.constant(-0.7), c.constant(0.9))));
        float64(
                "Clip with weights",
                c -> c.verify(c.node("Clip", c.rows(30), c.weight(new long[0], -0.71), c.weight(new long[0], 0.93))));
        float64("Clip below only", c -> c.verify(c.node("Clip", c.rows(3), "", c.constant(0.9))));
        float32("PRelu", c -> c.verify(c.node("PRelu", c.rows(5), c.weight(5))));
    }

    private static void reductions() {
        for (String op : List.of("ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin")) {
            float64(op, c -> c.verify(c.node(op, c.rows(3, 4), c.ints(-1))));
            float64(op + " dropped axes", c -> c.verify(c.with("keepdims", 0).node(op, c.rows(3, 4), c.ints(2, 1))));
            float64(op + " all", c -> c.verify(c.node(op, c.rows(3, 4))));
            float64(op + " to a scalar", c -> c.verify(c.with("keepdims", 0).node(op, c.rows(3))));
            float64(
                    op + " none",
                    c -> c.verify(c.with("noop_with_empty_axes", 1).node(op, c.rows(3), c.ints())));
            float64(
                    op + " of a sum",
                    c -> c.verify(c.node(op, c.node("ReduceSum", c.rows(3, 4), c.ints(1)), c.ints(-1))));
        }
        for (String op : List.of("ReduceSumSquare", "ReduceLogSumExp")) {
            float64(op, c -> c.verify(c.with("keepdims", 0).node(op, c.rows(3, 4), c.ints(1, 3))));
        }
        for (String op : List.of("ReduceL1", "ReduceL2")) {
            float32(op, c -> c.verify(c.with("keepdims", 0).node(op, c.rows(3, 4), c.ints(1, 3))));
        }
        float64(
                "a mean that is left alone",
                c -> c.verify(c.node("Add", c.node("ReduceMean", c.rows(3), c.ints(-1)), c.rows(1))));
        float64("a mean reshaped", c -> {
            String mean = c.node("ReduceMean", c.node("Reshape", c.rows(6), c.ints(0, 0, 2, 3)), c.ints(-1));
            c.verify(c.node("Mul", mean, c.weight(2, 1)));
        });
        for (int flags = 0; flags < 4; flags++) {
            int exclusive = flags & 1;
            int reverse = flags >> 1;
            float64(
                    "CumSum " + flags,
                    c -> c.verify(c.with("exclusive", exclusive)
                            .with("reverse", reverse)
                            .node("CumSum", c.rows(3), c.builder().index(1))));
        }
    }

    private static void products() {
        float64("MatMul by a matrix", c -> c.verify(c.node("MatMul", c.rows(3), c.weight(3, 5))));
        float64("MatMul of matrices", c -> c.verify(c.node("MatMul", c.weight(4, 3), c.weight(3, 5))));
        float64("MatMul of a higher rank by a matrix", c -> c.verify(c.node("MatMul", c.rows(2, 3), c.weight(3, 5))));
        float64("MatMul batched", c -> c.verify(c.node("MatMul", c.rows(2, 3), c.rows(3, 4))));
        float64("MatMul with a batch axis of 1", c -> c.verify(c.node("MatMul", c.rows(1, 2, 3), c.rows(5, 3, 4))));
        float64(
                "MatMul with a weight's batch axis of 1",
                c -> c.verify(c.node("MatMul", c.rows(2, 3), c.weight(1, 3, 4))));
        float64("MatMul with a missing batch axis", c -> c.verify(c.node("MatMul", c.weight(2, 3), c.rows(3, 4))));
        float64("MatMul with experts", c -> c.verify(c.node("MatMul", c.rows(1, 1, 3), c.weight(5, 3, 4))));
        float64("MatMul vector left", c -> c.verify(c.node("MatMul", c.weight(3), c.rows(3, 4))));
        float64("MatMul vector right", c -> c.verify(c.node("MatMul", c.rows(4, 3), c.weight(3))));
        float64("MatMul vectors", c -> c.verify(c.node("MatMul", c.weight(3), c.weight(3))));
        float64("MatMul by a transposed weight", c -> {
            // An embedding table that is also the output layer.
            String weight = c.weight(11, 3);
            String turned = c.with("perm", List.of(1, 0)).node("Transpose", weight);
            c.verify(c.node("MatMul", c.rows(3), turned), c.node("Gather", weight, "tokens"));
        });
        float64(
                "MatMul by a batched transposed value",
                c -> c.verify(c.node(
                        "MatMul",
                        c.rows(2, 3),
                        c.with("perm", List.of(0, 1, 3, 2)).node("Transpose", c.rows(4, 3)))));
        float64(
                "MatMul of a transposed value",
                c -> c.verify(c.node(
                        "MatMul", c.with("perm", List.of(0, 1, 3, 2)).node("Transpose", c.rows(3, 2)), c.rows(3, 4))));
        float64("MatMul of a transposed value used twice", c -> {
            String turned = c.with("perm", List.of(0, 1, 3, 2)).node("Transpose", c.rows(3, 3));
            c.verify(c.node("MatMul", turned, turned), turned);
        });
        for (int flags = 0; flags < 4; flags++) {
            int transA = flags & 1;
            int transB = flags >> 1;
            for (int[] bias : new int[][] {{5}, {1, 5}, {1}, {4, 1}, {4, 5}, {}}) {
                float64("Gemm " + flags + " bias of rank " + bias.length + java.util.Arrays.toString(bias), c -> {
                    String a = transA == 1 ? c.weight(3, 4) : c.weight(4, 3);
                    String b = transB == 1 ? c.weight(5, 3) : c.weight(3, 5);
                    String bias0 = c.weight(
                            java.util.Arrays.stream(bias).asLongStream().toArray());
                    c.verify(c.with("transA", transA)
                            .with("transB", transB)
                            .with("alpha", 0.7f)
                            .with("beta", 1.3f)
                            .node("Gemm", a, b, bias0));
                });
            }
        }
        float64("Gemm of rows", c -> {
            String rows = c.node("Reshape", c.rows(3), c.ints(-1, 3));
            c.verify(c.with("transB", 1).node("Gemm", rows, c.weight(5, 3)));
        });
    }

    private static void einsums() {
        float64(
                "Einsum product",
                c -> c.verify(c.with("equation", "bsi,io->bso").node("Einsum", c.rows(3), c.weight(3, 4))));
        float64(
                "Einsum heads",
                c -> c.verify(c.with("equation", "bthd, bshd -> bhts").node("Einsum", c.rows(2, 3), c.rows(2, 3))));
        float64(
                "Einsum implicit",
                c -> c.verify(c.with("equation", "ij,jk").node("Einsum", c.weight(3, 4), c.weight(4, 2))));
        float64(
                "Einsum ellipsis",
                c -> c.verify(
                        c.with("equation", "...i,...ij->...j").node("Einsum", c.rows(2, 3), c.weight(1, 1, 2, 3, 4))));
        float64(
                "Einsum implicit ellipsis",
                c -> c.verify(c.with("equation", "...ij,...jk").node("Einsum", c.rows(2, 3), c.rows(3, 4))));
        float64(
                "Einsum sum of one",
                c -> c.verify(c.with("equation", "bsij->bi").node("Einsum", c.rows(3, 4))));
        float64(
                "Einsum three",
                c -> c.verify(
                        c.with("equation", "bsi,ij,bsj->bs").node("Einsum", c.rows(3), c.weight(3, 4), c.rows(4))));
        float64(
                "Einsum lone label",
                c -> c.verify(c.with("equation", "bsi,kj->bsij").node("Einsum", c.rows(3), c.weight(2, 4))));
        float64("Einsum outer", c -> c.verify(c.with("equation", "i,j->ij").node("Einsum", c.weight(3), c.weight(4))));
        float64(
                "Einsum elementwise",
                c -> c.verify(c.with("equation", "bsi,bsi->bsi").node("Einsum", c.rows(3), c.rows(3))));
    }

    private static void normalizations() {
        for (String op : List.of("Softmax", "LogSoftmax")) {
            float64(op, c -> c.verify(c.node(op, c.rows(4))));
            float64(op + " inner axis", c -> c.verify(c.with("axis", 2).node(op, c.rows(3, 4))));
            float64(op + " over the length", c -> c.verify(c.with("axis", 1).node(op, c.rows(3))));
        }
        float64("LayerNormalization", c -> c.verify(c.node("LayerNormalization", c.rows(6), c.weight(6), c.weight(6))));
        float64(
                "LayerNormalization without bias",
                c -> c.verify(c.with("epsilon", 0.1f).node("LayerNormalization", c.rows(6), c.weight(6))));
        float64(
                "LayerNormalization of two axes",
                c -> c.verify(
                        c.with("axis", 2).node("LayerNormalization", c.rows(3, 4), c.weight(3, 4), c.weight(3, 4))));
    }

    private static void layout() {
        float64("Identity", c -> c.verify(c.node("Identity", c.rows(3))));
        float64("Reshape", c -> c.verify(c.node("Reshape", c.rows(6), c.ints(0, -1, 3))));
        float64("Flatten", c -> c.verify(c.with("axis", 2).node("Flatten", c.rows(2, 3))));
        float64("Transpose", c -> c.verify(c.with("perm", List.of(2, 0, 3, 1)).node("Transpose", c.rows(2, 3))));
        float64("Transpose reversed", c -> c.verify(c.node("Transpose", c.rows(2, 3))));
        float64("Squeeze", c -> c.verify(c.node("Squeeze", c.rows(1, 3), c.ints(-2))));
        float64("Squeeze all", c -> c.verify(c.node("Squeeze", c.weight(1, 3, 1))));
        float64("Unsqueeze", c -> c.verify(c.node("Unsqueeze", c.rows(3), c.ints(0, -1))));
        float32("Cast between float types", c -> {
            String float64 = c.with("to", DType.DOUBLE.code()).node("Cast", c.rows(3));
            String square = c.node("Mul", float64, float64);
            c.verify(c.with("to", DType.FLOAT.code()).node("Cast", square));
        });
        float64("Dropout", c -> c.verify(c.node("Dropout", c.rows(3))));
        float64("Expand", c -> c.verify(c.node("Expand", c.rows(1, 3), c.ints(2, 1, 1, 4, 3))));
        float64("Expand to a larger rank", c -> c.verify(c.node("Expand", c.weight(3, 1), c.ints(2, 3, 4))));
        float64("Tile", c -> c.verify(c.node("Tile", c.rows(3), c.ints(2, 1, 4))));
        float64("Concat", c -> c.verify(c.with("axis", -1).node("Concat", c.rows(3), c.rows(1), c.rows(2))));
        float64("Concat over the length", c -> c.verify(c.with("axis", 1).node("Concat", c.rows(3), c.rows(3))));
        float64("Concat of one", c -> c.verify(c.with("axis", 1).node("Concat", c.rows(3))));
        float64("Split", c -> {
            List<String> parts = c.with("axis", -1).nodes(3, "Split", c.rows(6), c.ints(1, 2, 3));
            c.verify(parts.get(0), c.node("Mul", parts.get(2), parts.get(2)));
        });
        float64("Split evenly", c -> {
            List<String> parts = c.with("axis", 2).with("num_outputs", 2).nodes(2, "Split", c.rows(6));
            c.verify(c.node("Mul", parts.get(0), parts.get(1)));
        });
    }

    private static void convolutions() {
        convolution("depthwise causal", 6, List.of(2L, 0L), 6, 1, 1, 6, 1, 3);
        convolution("depthwise, twice as many channels", 3, List.of(1L, 1L), 3, 1, 1, 6, 1, 3);
        convolution("groups", 6, List.of(3L, 0L), 2, 1, 1, 4, 3, 4);
        convolution("one group", 4, List.of(0L, 2L), 1, 1, 1, 5, 4, 3);
        convolution("single tap", 4, List.of(0L, 0L), 1, 1, 1, 5, 4, 1);
        convolution("dilated", 4, List.of(4L, 0L), 4, 1, 2, 4, 1, 3);
        convolution("strided", 4, List.of(2L, 1L), 2, 2, 1, 6, 2, 3);
        convolution("strided and dilated", 3, List.of(3L, 2L), 1, 3, 2, 2, 3, 2);
        for (String mode : List.of("SAME_UPPER", "SAME_LOWER")) {
            float32("Conv " + mode, c -> {
                String x = c.with("perm", List.of(0, 2, 1)).node("Transpose", c.rows(3));
                c.verify(c.with("auto_pad", mode).with("group", 3).node("Conv", x, c.weight(3, 1, 4)));
            });
        }
        float32("Conv without padding", c -> {
            String x = c.node("Unsqueeze", c.rows(9), c.ints(2));
            String merged = c.node("Reshape", x, c.ints(-1, 1, 9));
            c.verify(c.with("auto_pad", "VALID").node("Conv", merged, c.weight(2, 1, 4), c.weight(2)));
        });
        float32("Conv of two axes", c -> {
            String x = c.node("Reshape", c.rows(4, 5, 3), c.ints(-1, 4, 5, 3));
            c.verify(c.with("group", 2)
                    .with("pads", List.of(1, 0, 0, 2))
                    .with("strides", List.of(2, 1))
                    .with("dilations", List.of(1, 2))
                    .node("Conv", x, c.weight(6, 2, 2, 2), c.weight(6)));
        });
    }

    /** A convolution along the positions, with a weight of the given shape and a bias. */
    private static void convolution(
            String name, long channels, List<Long> pads, int group, int stride, int dilation, long... weight) {
        float32("Conv " + name, c -> {
            String x = c.with("perm", List.of(0, 2, 1)).node("Transpose", c.rows(channels));
            c.verify(c.with("group", group)
                    .with("pads", pads)
                    .with("strides", List.of(stride))
                    .with("dilations", List.of(dilation))
                    .node("Conv", x, c.weight(weight), c.weight(weight[0])));
        });
    }

    private static void slices() {
        float64("Slice", c -> c.verify(c.node("Slice", c.rows(6), c.ints(1), c.ints(4), c.ints(-1))));
        float64("Slice halves", c -> {
            String x = c.rows(6);
            String left = c.node("Slice", x, c.ints(0), c.ints(3), c.ints(2));
            String right = c.node("Slice", x, c.ints(3), c.ints(Long.MAX_VALUE), c.ints(-1));
            String negative = c.node("Neg", right);
            c.verify(c.with("axis", -1).node("Concat", negative, left), c.node("Mul", x, x));
        });
        float64("Slice pieces that overlap and leave gaps", c -> {
            String x = c.rows(9);
            c.verify(
                    c.node("Slice", x, c.ints(0), c.ints(3), c.ints(2)),
                    c.node("Slice", x, c.ints(2), c.ints(4), c.ints(2)),
                    c.node("Slice", x, c.ints(-2), c.ints(-1), c.ints(2)),
                    c.node("Slice", x, c.ints(1), c.ints(3), c.ints(1)));
        });
        float64(
                "Slice of several axes",
                c -> c.verify(c.node(
                        "Slice",
                        c.rows(5, 6),
                        c.ints(1, -4, 0),
                        c.ints(9, -1, 100),
                        c.ints(1, 3, 2),
                        c.ints(1, 1, 2))));
        float64("Slice without axes", c -> c.verify(c.node("Slice", c.rows(5), c.ints(0, 1), c.ints(99, 99))));
        float64(
                "Slice by steps",
                c -> c.verify(c.node("Slice", c.rows(7), c.ints(1), c.ints(7), c.ints(2), c.ints(3))));
        float64(
                "Slice backwards",
                c -> c.verify(c.node("Slice", c.rows(7), c.ints(-1), c.ints(-100), c.ints(2), c.ints(-1))));
        float64(
                "Slice backwards by steps",
                c -> c.verify(c.node("Slice", c.rows(8), c.ints(6), c.ints(1), c.ints(2), c.ints(-2))));
        float64("Slice interleaved", c -> {
            String x = c.rows(6);
            String even = c.node("Slice", x, c.ints(0), c.ints(6), c.ints(2), c.ints(2));
            String odd = c.node("Slice", x, c.ints(1), c.ints(6), c.ints(2), c.ints(2));
            c.verify(c.node("Mul", even, c.node("Exp", odd)));
        });
        float64("Slice with bounds from the length", c -> {
            String length = c.with("start", 1).with("end", 2).node("Shape", "tokens");
            String half = c.node("Div", length, c.ints(2));
            c.verify(c.node("Slice", c.rows(3), half, length, c.ints(1)));
        });
        float64("Slice with bounds from the tokens", c -> {
            String first = c.node("ReduceMax", "tokens", c.ints(0, 1));
            String start = c.node("Mod", c.node("Reshape", first, c.ints(1)), c.ints(3));
            c.verify(c.node("Slice", c.rows(6), start, c.ints(6), c.ints(2)));
        });
        float64("Pad", c -> c.verify(c.node("Pad", c.rows(3), c.ints(0, 1, 2, 1, 0, 3), c.constant(0.5))));
        float64("Pad that cuts", c -> c.verify(c.node("Pad", c.rows(6), c.ints(-1, 2), c.constant(0), c.ints(2))));
    }

    private static void indices() {
        float64("Gather rows", c -> c.verify(c.rows(3)));
        float64("Gather one", c -> {
            String x = c.rows(4, 3);
            c.verify(c.node(
                    "Mul",
                    c.with("axis", 2).node("Gather", x, c.builder().index(1)),
                    c.with("axis", 2).node("Gather", x, c.builder().index(-1))));
        });
        float64(
                "Gather some of an inner axis",
                c -> c.verify(c.with("axis", 2).node("Gather", c.rows(4, 3), c.ints(2, 0, 2))));
        float64("Gather a table of an inner axis", c -> {
            String index = c.node("Reshape", c.ints(1, 0, 3, -1), c.ints(2, 2));
            c.verify(c.with("axis", -1).node("Gather", c.rows(2, 4), index));
        });
        float64("Gather by token", c -> {
            String one = c.node("Mod", c.node("Reshape", c.node("ReduceMax", "tokens"), c.ints(1)), c.ints(4));
            c.verify(c.with("axis", 2).node("Gather", c.rows(4), one));
        });
        float64("GatherElements", c -> {
            String index = c.node("Mod", c.node("Unsqueeze", "tokens", c.ints(-1)), c.ints(3));
            String twice = c.with("axis", -1).node("Concat", index, index);
            c.verify(c.with("axis", 2).node("GatherElements", c.rows(3), twice));
        });
        float64(
                "GatherND",
                c -> c.verify(c.node("GatherND", c.weight(11, 3), c.node("Unsqueeze", "tokens", c.ints(-1)))));
        float64("GatherND of a batch", c -> {
            String index = c.node("Mod", c.node("Unsqueeze", "tokens", c.ints(-1)), c.ints(3));
            c.verify(c.with("batch_dims", 2).node("GatherND", c.rows(3, 4), index));
        });
        for (String reduction : List.of("none", "add")) {
            float64("ScatterElements " + reduction, c -> {
                String index = c.node("Mod", c.node("Unsqueeze", "tokens", c.ints(-1)), c.ints(3));
                c.verify(c.with("axis", -1)
                        .with("reduction", reduction)
                        .node("ScatterElements", c.rows(3), index, c.rows(1)));
            });
            float64("ScatterND " + reduction, c -> {
                String index = c.node("Reshape", c.ints(3, 0, 7), c.ints(3, 1));
                c.verify(c.with("reduction", reduction).node("ScatterND", c.weight(8, 2), index, c.weight(3, 2)));
            });
        }
        float64("ScatterND add twice", c -> {
            String index = c.node("Reshape", c.ints(3, 0, 3), c.ints(3, 1));
            c.verify(c.with("reduction", "add").node("ScatterND", c.weight(8, 2), index, c.weight(3, 2)));
        });
        for (int upper = 0; upper < 2; upper++) {
            int side = upper;
            float64("Trilu " + upper, c -> c.verify(c.with("upper", side).node("Trilu", c.rows(4, 5))));
            float64(
                    "Trilu moved " + upper,
                    c -> c.verify(c.with("upper", side)
                            .node("Trilu", c.rows(4, 5), c.builder().index(1))));
        }
        float64("TopK", c -> c.verify(c.nodes(2, "TopK", c.rows(6), c.ints(2)).get(0)));
    }
}
