// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.Model;
import io.onnxprune.lower.Lowering;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.HostTensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Loss and gradients of a trained model, compared with those of an independent float64 implementation. */
@Tag("ort")
class GoldenGradientTest {
    private static final Path GOLDEN = Path.of("..", "shared", "golden", "golden_stories260k.npz");
    private static final Path TOKENS = Path.of("..", "shared", "data", "stories", "calibration.jsonl");
    private static final int ROWS = 4;
    private static final int LENGTH = 64;
    private static final double TOLERANCE = 1e-4;

    @ParameterizedTest
    @ValueSource(strings = {"stories260k-a", "stories260k-c", "stories260k-d"})
    void everyGradientMatchesTheGoldenOne(String name) throws IOException {
        assumeTrue(Files.exists(GOLDEN), () -> GOLDEN + " is not there");
        Map<String, NumpyArchive.Array> golden = NumpyArchive.read(GOLDEN, "grad/");
        double[] rowLosses = NumpyArchive.read(GOLDEN, "loss_rows").get("").values();
        long[][] tokens = tokens();

        Model lowered = Lowering.lower(ModelReader.read(TestModels.file(name)), TestModels.runtime(), LENGTH, Log.NONE);

        try (GradientModel model = GradientModel.of(lowered)) {
            float[] losses = model.losses(tokens);
            for (int row = 0; row < ROWS; row++) {
                assertThat((double) losses[row]).isCloseTo(rowLosses[row], within(1e-5));
            }
            List<double[]> computed = candidates(model.gradients(tokens));
            assertThat(golden)
                    .hasSizeGreaterThan(40)
                    .allSatisfy((parameter, array) -> assertThat(nearest(array.values(), computed))
                            .as(parameter)
                            .isLessThan(TOLERANCE));
        }
    }

    private static long[][] tokens() throws IOException {
        List<String> lines = Files.readAllLines(TOKENS).subList(0, ROWS);
        long[][] tokens = new long[ROWS][LENGTH];
        for (int row = 0; row < ROWS; row++) {
            JsonNode ids = new ObjectMapper().readTree(lines.get(row)).get("input_ids");
            for (int i = 0; i < LENGTH; i++) {
                tokens[row][i] = ids.get(i).asLong();
            }
        }
        return tokens;
    }

    /**
     * The gradients of the mean loss. Matrices are also transposed, because exports store weights in either
     * orientation. A weight that an export stores twice, once in each orientation, has the sum of both gradients.
     */
    private static List<double[]> candidates(Map<String, HostTensor> gradients) {
        List<double[]> candidates = new ArrayList<>();
        Map<String, List<double[]>> matrices = new HashMap<>();
        gradients.values().forEach(tensor -> {
            double[] values = new double[(int) tensor.elements()];
            float[] floats = tensor.toFloats();
            for (int i = 0; i < values.length; i++) {
                values[i] = floats[i] / (double) ROWS;
            }
            candidates.add(values);
            if (tensor.shape().length == 2) {
                int rows = (int) tensor.shape()[0];
                int columns = (int) tensor.shape()[1];
                double[] turned = transposed(values, rows, columns);
                candidates.add(turned);
                matrices.computeIfAbsent(rows + "x" + columns, key -> new ArrayList<>())
                        .add(values);
                matrices.computeIfAbsent(columns + "x" + rows, key -> new ArrayList<>())
                        .add(turned);
            }
        });
        for (List<double[]> same : matrices.values()) {
            if (same.size() == 2) {
                candidates.add(sum(same.get(0), same.get(1)));
            }
        }
        return candidates;
    }

    private static double[] transposed(double[] values, int rows, int columns) {
        double[] turned = new double[values.length];
        for (int i = 0; i < values.length; i++) {
            turned[i % columns * rows + i / columns] = values[i];
        }
        return turned;
    }

    private static double[] sum(double[] a, double[] b) {
        double[] sum = new double[a.length];
        for (int i = 0; i < a.length; i++) {
            sum[i] = a[i] + b[i];
        }
        return sum;
    }

    /** The smallest relative L2 distance to a gradient of that size. Gradients of different weights are far apart. */
    private static double nearest(double[] expected, List<double[]> candidates) {
        double nearest = Double.POSITIVE_INFINITY;
        for (double[] candidate : candidates) {
            if (candidate.length == expected.length) {
                double distance = 0;
                double norm = 0;
                for (int i = 0; i < expected.length; i++) {
                    distance += (candidate[i] - expected[i]) * (candidate[i] - expected[i]);
                    norm += expected[i] * expected[i];
                }
                nearest = Math.min(nearest, Math.sqrt(distance / norm));
            }
        }
        return nearest;
    }
}
