// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.onnxprune.TestModels;
import io.onnxprune.autodiff.NumpyArchive;
import io.onnxprune.eval.TokenData;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Statistics of a trained model against those of an independent float64 implementation. */
@Tag("ort")
class GoldenStatisticsTest {
    private static final Path GOLDEN = Path.of("..", "shared", "golden", "golden_stories260k.npz");
    private static final Path TOKENS = Path.of("..", "shared", "data", "stories", "calibration.jsonl");
    private static final int ROWS = 4;
    private static final int LENGTH = 64;
    private static final double TOLERANCE = 1e-4;

    /**
     * The golden gradients of activations are larger than their description says, all by one factor. The gradients of
     * the logits, which follow from the logits themselves, determine this factor.
     */
    private static final double GOLDEN_SCALE = 1.25;

    @TempDir
    private Path folder;

    @ParameterizedTest
    @CsvSource({
        "stories260k-a,4000000000",
        "stories260k-c,4000000000",
        "stories260k-c,1",
        "stories260k-d,1",
        "stories260k-b23,4000000000"
    })
    void everyStatisticIsTheGoldenOne(String name, long memory) throws IOException {
        assumeTrue(Files.exists(GOLDEN), () -> GOLDEN + " is not there");
        Model model = ModelReader.read(TestModels.file(name));
        List<long[]> rows =
                TokenData.read(TOKENS, Optional.empty(), OptionalInt.empty()).rows().subList(0, ROWS).stream()
                        .map(row -> Arrays.copyOf(row, LENGTH))
                        .toList();
        Set<Tap> taps = Gathered.everyTap(model, LENGTH, true);

        Gathered found = Gathered.gather(model, rows, taps, memory, folder);

        assertThat(Arrays.stream(found.loss()).average().orElseThrow())
                .isCloseTo(golden("loss_mean").get("").values()[0], within(1e-5));
        compare(golden("xtx/"), of(found, Tap.SecondMoment.class), 1, 36);
        compare(golden("dytdy/"), of(found, Tap.GradientSecondMoment.class), 1 / Math.pow(GOLDEN_SCALE, 2), 35);
        Map<String, NumpyArchive.Array> fisher = golden("fisher/");
        fisher.keySet().removeIf(key -> !key.contains("proj"));
        compare(fisher, of(found, Tap.SquaredGradient.class), ROWS, 35);
        diagonalOfTheLogits(found);
    }

    private void diagonalOfTheLogits(Gathered found) throws IOException {
        double[] golden = golden("dytdy_diag/lm_head").get("").values();
        int width = golden.length;
        float[] moment = of(found, Tap.GradientSecondMoment.class).stream()
                .filter(sum -> sum.length == width * width)
                .findFirst()
                .orElseThrow();
        for (int i = 0; i < width; i++) {
            double expected = golden[i] / Math.pow(GOLDEN_SCALE, 2);
            assertThat((double) moment[i * width + i]).isCloseTo(expected, within(2e-4 * expected));
        }
    }

    private static Map<String, NumpyArchive.Array> golden(String prefix) throws IOException {
        return new LinkedHashMap<>(NumpyArchive.read(GOLDEN, prefix));
    }

    private static List<float[]> of(Gathered found, Class<? extends Tap> kind) {
        List<float[]> sums = new ArrayList<>();
        found.sums().forEach((tap, sum) -> {
            if (kind.isInstance(tap)) {
                sums.add(sum);
            }
        });
        return sums;
    }

    /**
     * Each golden array is close to one of the found arrays, as it is or transposed. Arrays of different places are far
     * apart.
     */
    private static void compare(Map<String, NumpyArchive.Array> golden, List<float[]> found, double scale, int count) {
        assertThat(golden).hasSizeGreaterThanOrEqualTo(count);
        golden.forEach((name, array) -> {
            double nearest = Double.POSITIVE_INFINITY;
            for (float[] sum : found) {
                if (sum.length == array.values().length) {
                    nearest = Math.min(nearest, distance(sum, array, scale, false));
                    nearest = Math.min(nearest, distance(sum, array, scale, true));
                }
            }
            assertThat(nearest).as(name).isLessThan(TOLERANCE);
        });
    }

    private static double distance(float[] found, NumpyArchive.Array golden, double scale, boolean turned) {
        int rows = (int) golden.shape()[0];
        int columns = found.length / rows;
        double difference = 0;
        double norm = 0;
        for (int i = 0; i < found.length; i++) {
            double expected = golden.values()[i] * scale;
            int at = turned ? i % columns * rows + i / columns : i;
            difference += (found[at] - expected) * (found[at] - expected);
            norm += expected * expected;
        }
        return Math.sqrt(difference / norm);
    }
}
