// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.calibrate.AxisReduction.Term;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.runtime.HostTensor;
import java.nio.ByteBuffer;
import java.util.BitSet;
import java.util.Random;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** Random tensors of all ranks and types, against a direct computation. */
@Tag("ort")
class GradientReductionTest {
    private static final long[][] SHAPES = {{7}, {1}, {5, 6}, {1, 9}, {3, 4, 5}, {2, 3, 2, 4}};
    private static final Term PRODUCT =
            (builder, weights, gradients, squares) -> builder.add("Abs", builder.add("Mul", weights, gradients));
    private static final Term SECOND =
            (builder, weights, gradients, squares) -> builder.add("Mul", builder.add("Mul", weights, weights), squares);

    private final Random random = new Random(11);

    private static Model model() {
        return TestModels.structure("llama-gqa-d").analysis().program().model();
    }

    private GradientReduction reduction(long block) {
        return new GradientReduction(TestModels.runtime(), model(), block);
    }

    private HostTensor randomSums(long[] shape) {
        float[] values = new float[(int) Tensor.elements(shape)];
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) random.nextGaussian();
        }
        return HostTensor.ofFloat32(shape, values);
    }

    private Tensor randomWeights(DType dtype, long[] shape) {
        if (dtype.isFloat()) {
            return Tensor.ofFloats(dtype, shape, randomSums(shape).toFloats());
        }
        byte[] bytes = new byte[(int) Tensor.elements(shape)];
        random.nextBytes(bytes);
        return Tensor.of(dtype, shape, Bytes.of(ByteBuffer.wrap(bytes)));
    }

    /** One zero, or one for each index along an axis. */
    private AxisReduction wanted(Term term, Tensor weights, int zeroAxis) {
        long count = zeroAxis < 0 ? 1 : weights.dim(zeroAxis);
        long[] zeros = LongStream.range(0, count).map(i -> 3 * i - 1).toArray();
        BitSet axes = new BitSet();
        axes.set(0, weights.rank());
        axes.clear(weights.rank() > 2 ? 1 : weights.rank());
        return new AxisReduction(term, weights, zeros, Math.max(0, zeroAxis), axes);
    }

    private static double[][] direct(AxisReduction wanted, float[] gradients, float[] squares) {
        Tensor weights = wanted.weights();
        long[] shape = weights.shape();
        float[] w = weights.toFloats();
        double[][] along = new double[shape.length][];
        wanted.axes().stream().forEach(axis -> along[axis] = new double[(int) shape[axis]]);
        for (int i = 0; i < w.length; i++) {
            int[] index = new int[shape.length];
            int rest = i;
            for (int axis = shape.length - 1; axis >= 0; axis--) {
                index[axis] = (int) (rest % shape[axis]);
                rest /= (int) shape[axis];
            }
            long[] zeros = wanted.zeros();
            double weight = (double) w[i] - zeros[zeros.length == 1 ? 0 : index[wanted.zeroAxis()]];
            double term = wanted.term() == PRODUCT ? Math.abs(weight * gradients[i]) : weight * weight * squares[i];
            wanted.axes().stream().forEach(axis -> along[axis][index[axis]] += term);
        }
        return along;
    }

    private static void assertEqual(double[][] found, double[][] expected) {
        for (int axis = 0; axis < expected.length; axis++) {
            if (expected[axis] == null) {
                assertThat(found[axis]).isNull();
            } else {
                assertThat(found[axis]).containsExactly(expected[axis], within(1e-10));
            }
        }
    }

    @ParameterizedTest
    @EnumSource(names = {"FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT8", "UINT8"})
    void sumsAlongAxesAreThoseOfTheTerms(DType dtype) {
        for (long block : new long[] {1, 13, 1000}) {
            try (GradientReduction reduction = reduction(block)) {
                for (long[] shape : SHAPES) {
                    for (int zeroAxis = -1; zeroAxis < shape.length; zeroAxis++) {
                        HostTensor gradients = randomSums(shape);
                        HostTensor squares = randomSums(shape);
                        for (Term term : new Term[] {PRODUCT, SECOND}) {
                            AxisReduction wanted = wanted(term, randomWeights(dtype, shape), zeroAxis);
                            assertEqual(
                                    reduction.sums(gradients, squares).reduce(wanted),
                                    direct(wanted, gradients.toFloats(), squares.toFloats()));
                        }
                    }
                }
            }
        }
    }

    @Test
    void aSliceTakesTheZerosOfItsIndices() {
        try (GradientReduction reduction = reduction(1000)) {
            for (int zeroAxis = -1; zeroAxis < 2; zeroAxis++) {
                AxisReduction wanted = wanted(PRODUCT, randomWeights(DType.UINT8, new long[] {5, 6}), zeroAxis);
                AxisReduction slice = wanted.slice(new int[][] {{0, 3, 4}, {1, 2}});
                HostTensor gradients = randomSums(new long[] {3, 2});
                float[] whole = new float[30];
                for (int i = 0; i < 6; i++) {
                    whole[6 * slice(i / 2, 0, 3, 4) + slice(i % 2, 1, 2)] =
                            gradients.toFloats()[i];
                }
                double[][] expected = direct(wanted, whole, whole);
                double[][] found = reduction.sums(gradients, null).reduce(slice);
                assertThat(found[0])
                        .containsExactly(new double[] {expected[0][0], expected[0][3], expected[0][4]}, within(1e-10));
                assertThat(found[1]).containsExactly(new double[] {expected[1][1], expected[1][2]}, within(1e-10));
            }
        }
    }

    private static int slice(int index, int... kept) {
        return kept[index];
    }

    @Test
    void sumsInThisProcessAreLeftToTheCaller() {
        try (GradientReduction reduction = reduction(1000)) {
            HostTensor gradients = randomSums(new long[] {2, 3});
            GradientSums sums = reduction.sums(gradients, null);
            AxisReduction wanted = wanted(PRODUCT, randomWeights(DType.FLOAT, new long[] {2, 3}), -1);

            assertThat(sums.along(wanted)).isEmpty();
            assertThat(sums.squares()).isNull();
            assertThat(sums.sum().get(4)).isEqualTo(gradients.toFloats()[4]);
        }
    }

    @Test
    void weightsOfAnotherShapeAreRefused() {
        try (GradientReduction reduction = reduction(1000)) {
            AxisReduction wanted = wanted(PRODUCT, randomWeights(DType.FLOAT, new long[] {3, 2}), -1);
            GradientReduction.Sums sums = reduction.sums(randomSums(new long[] {2, 3}), null);
            assertThatThrownBy(() -> sums.reduce(wanted))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("the gradients are FLOAT[2, 3], but the weights are float[3, 2]");
        }
    }
}
