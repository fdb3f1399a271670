// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Floats;
import io.onnxprune.ir.Model;
import io.onnxprune.lower.Lowering;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.HostTensor;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Gradients of exported models, compared with the change of the loss when a weight is changed. */
@Tag("ort")
@Tag("slow")
class ModelGradientTest {
    private static final int BATCH = 2;
    private static final int LENGTH = 9;

    /** Target changes of the loss. Smaller ones are dominated by rounding, larger ones by curvature and kinks. */
    private static final double[] CHANGES = {1e-2, 3e-3, 1e-3, 1e-1};

    /** Maximal steps as shares of the weight, however little the loss changes. */
    private static final double[] MAX_STEPS = {5e-2, 5e-3, 5e-4};

    /** Some units in the last place of a float32 loss of this size. */
    private static final double NOISE = 3e-6;

    private static final double TOLERANCE = 1e-2;
    /** Shares of a step ahead and behind. Where an activation has a kink, the gradient is that of one side. */
    private static final double[][] SIDES = {{1, 1}, {1, 0}, {0, 1}};

    static Stream<String> models() {
        return TestModels.names().stream();
    }

    @ParameterizedTest
    @MethodSource("models")
    void gradientsPredictTheLoss(String name) {
        assertThat(disagreements(ModelReader.read(TestModels.file(name)))).isEmpty();
    }

    /** Descriptions of the weights whose gradient does not agree with differences of the loss. */
    static List<String> disagreements(Model original) {
        Model model = Lowering.lower(original, TestModels.runtime(), LENGTH, Log.NONE);
        long[][] tokens = new long[BATCH][];
        Random random = new Random(5);
        for (int row = 0; row < BATCH; row++) {
            tokens[row] = random.longs(LENGTH, 3, 60).toArray();
        }
        List<String> problems = new ArrayList<>();
        try (GradientModel differentiated = GradientModel.of(model);
                GradientModel movable = GradientModel.ofMovableWeights(model)) {
            Map<String, HostTensor> gradients = differentiated.gradients(tokens);
            assertThat(gradients).isNotEmpty();
            for (String weight : List.copyOf(movable.movableWeights().keySet())) {
                HostTensor start = movable.movableWeights().get(weight);
                double[] values = doubles(start);
                double[] gradient =
                        gradients.containsKey(weight) ? doubles(gradients.get(weight)) : new double[values.length];
                for (double[] direction : directions(random, gradient)) {
                    String problem = compare(movable, tokens, weight, start, gradient, direction);
                    if (problem != null) {
                        problems.add(weight + ": " + problem);
                    }
                }
            }
        }
        return problems;
    }

    /**
     * Directions along the gradient and along a random half of it. Without a gradient any direction, because the loss
     * must not change.
     */
    private static List<double[]> directions(Random random, double[] gradient) {
        double[] half = gradient.clone();
        boolean none = dot(gradient, gradient) == 0;
        for (int i = 0; i < half.length; i++) {
            half[i] = none ? random.nextGaussian() : random.nextBoolean() ? half[i] : 0;
        }
        return List.of(none ? half : gradient, half);
    }

    /** Null when for some step the loss changes as the gradient predicts. */
    private static String compare(
            GradientModel model,
            long[][] tokens,
            String weight,
            HostTensor start,
            double[] gradient,
            double[] direction) {
        double[] values = doubles(start);
        double size = Math.sqrt((dot(values, values) + 1e-6) / Math.max(dot(direction, direction), 1e-30));
        String problem = null;
        double slope = Math.abs(dot(gradient, direction));
        double[] steps = Arrays.stream(CHANGES)
                .flatMap(change ->
                        Arrays.stream(MAX_STEPS).map(share -> Math.min(change / Math.max(slope, 1e-30), share * size)))
                .distinct()
                .toArray();
        for (double[] side : SIDES) {
            for (double step : steps) {
                HostTensor ahead = moved(start, direction, side[0] * step);
                HostTensor behind = moved(start, direction, -side[1] * step);
                double[] way = doubles(ahead);
                double[] from = doubles(behind);
                for (int i = 0; i < way.length; i++) {
                    way[i] -= from[i];
                }
                double predicted = dot(gradient, way);
                double change = loss(model, tokens, weight, ahead) - loss(model, tokens, weight, behind);
                model.movableWeights().put(weight, start);
                if (Math.abs(predicted - change) <= NOISE + TOLERANCE * Math.abs(predicted)) {
                    return null;
                }
                if (problem == null) {
                    problem = "foretold " + predicted + ", changed by " + change;
                }
            }
        }
        return problem;
    }

    private static double loss(GradientModel model, long[][] tokens, String weight, HostTensor values) {
        model.movableWeights().put(weight, values);
        double sum = 0;
        for (float row : model.losses(tokens)) {
            sum += row;
        }
        return sum;
    }

    private static HostTensor moved(HostTensor start, double[] direction, double step) {
        float[] values = start.toFloats();
        for (int i = 0; i < values.length; i++) {
            values[i] = (float) (values[i] + step * direction[i]);
        }
        ByteBuffer bytes = ByteBuffer.allocateDirect(
                        Math.toIntExact(start.dtype().bytes(values.length)))
                .order(ByteOrder.LITTLE_ENDIAN);
        Floats.encode(start.dtype(), values, values.length, bytes);
        return new HostTensor(start.dtype(), start.shape(), bytes.flip());
    }

    private static double[] doubles(HostTensor tensor) {
        assertThat(tensor.dtype()).isIn(DType.FLOAT, DType.DOUBLE, DType.FLOAT16, DType.BFLOAT16);
        float[] floats = tensor.toFloats();
        double[] values = new double[floats.length];
        for (int i = 0; i < values.length; i++) {
            values[i] = floats[i];
        }
        return values;
    }

    private static double dot(double[] a, double[] b) {
        double dot = 0;
        for (int i = 0; i < a.length; i++) {
            dot += a[i] * b[i];
        }
        return dot;
    }
}
