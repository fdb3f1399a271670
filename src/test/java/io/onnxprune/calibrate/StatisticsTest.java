// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Statistics.Origin;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

@Tag("ort")
class StatisticsTest {
    private static final int LENGTH = 8;
    private static final Origin ORIGIN = new Origin("abc", 3, LENGTH, Origin.EMPIRICAL);
    private static final List<long[]> ROWS = Gathered.randomRows(3, LENGTH, 32, 5);

    @TempDir
    private Path folder;

    private Calibrator calibrator;
    private Set<Tap> taps;

    @BeforeEach
    void model() {
        Model model = ModelReader.read(TestModels.file("llama-gqa-d"));
        CalibrationOptions options = new CalibrationOptions(Gathered.AMPLE, folder.resolve("work"), false);
        calibrator = Calibrator.of(model, TestModels.runtime(), options, LENGTH, Log.NONE);
        taps = new HashSet<>(Gathered.everyTap(model, LENGTH, true));
        List<LoweredLinear> linears = calibrator.linears();
        Activation first = linears.get(0).input();
        taps.add(new Tap.Positions(first));
        for (LoweredLinear linear : linears) {
            if (linear.input().width() == first.width()) {
                taps.add(new Tap.Similarity(first, linear.input()));
            }
        }
    }

    private Map<Tap, float[]> gathered() {
        Map<Tap, float[]> sums = new HashMap<>();
        calibrator.gather(ROWS, taps, (tap, sum) -> sums.put(tap, sum.toFloats()));
        return sums;
    }

    private void assertSame(Statistics statistics, Map<Tap, float[]> sums) {
        assertThat(sums).containsOnlyKeys(taps);
        sums.forEach((tap, sum) ->
                assertThat(statistics.sum(tap).toFloats()).as(tap.toString()).isEqualTo(sum));
        assertThat(statistics.tokens()).isEqualTo(3 * LENGTH);
    }

    /** Every kind of tap is read as it was measured, from the work folder and from a kept file. */
    @Test
    void everySumIsReadAsItWasMeasured() {
        Map<Tap, float[]> sums = gathered();
        Path file = folder.resolve("kept.safetensors");
        try (Statistics statistics = Statistics.measure(calibrator, ROWS, taps)) {
            assertSame(statistics, sums);
            assertThat(folder.resolve("work")).isEmptyDirectory();
        }
        try (Statistics statistics = Statistics.measure(calibrator, ROWS, taps, file, ORIGIN)) {
            assertSame(statistics, sums);
        }
        assertThat(Statistics.isFile(file)).isTrue();
        assertThat(Statistics.origin(file)).isEqualTo(ORIGIN);
        try (Statistics statistics = Statistics.read(file, calibrator, taps)) {
            assertSame(statistics, sums);
        }
    }

    @Test
    void matricesOfALinearLayer() {
        LoweredLinear linear = calibrator.linears().get(3);
        Map<Tap, float[]> sums = gathered();
        try (Statistics statistics = Statistics.measure(calibrator, ROWS, taps);
                Matrix inputs = statistics.inputs(linear.input());
                Matrix gradients = statistics.gradients(linear.output())) {
            float[] a = sums.get(new Tap.SecondMoment(linear.input()));
            float[] g = sums.get(new Tap.GradientSecondMoment(linear.output()));
            assertThat(inputs.get(1, 2)).isEqualTo(a[inputs.columns() + 2]).isNotZero();
            assertThat(gradients.get(2, 0))
                    .isEqualTo(g[2 * gradients.columns()])
                    .isNotZero();
        }
    }

    @Test
    void missingStatisticsAreNamed() {
        Path file = folder.resolve("some.safetensors");
        LoweredLinear linear = calibrator.linears().get(0);
        Tap inputs = new Tap.SecondMoment(linear.input());
        Statistics.measure(calibrator, ROWS, Set.of(inputs), file, ORIGIN).close();

        assertThatThrownBy(() -> Statistics.read(
                        file, calibrator, List.of(inputs, new Tap.GradientSecondMoment(linear.output()))))
                .isInstanceOf(UserException.class)
                .hasMessageContainingAll(
                        "have no \"gradients/" + linear.output().value() + '"', "other passes");
        Activation narrow = new Activation(linear.input().value(), 3);
        assertThatThrownBy(() -> Statistics.read(file, calibrator, List.of(new Tap.SecondMoment(narrow))))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("but the model has [3, 3]");
        try (Statistics statistics = Statistics.read(file, calibrator, List.of(inputs))) {
            assertThatThrownBy(() -> statistics.sum(new Tap.Squares(linear.input())))
                    .isInstanceOf(IllegalArgumentException.class);
        }
    }

    /** A failed run keeps the file of an earlier one and leaves no other file. */
    @Test
    void aFailedRunKeepsTheEarlierFile() throws IOException {
        Path file = folder.resolve("some.safetensors");
        Statistics.measure(calibrator, ROWS, taps, file, ORIGIN).close();
        byte[] before = Files.readAllBytes(file);
        Tap unknown = new Tap.SecondMoment(new Activation("nowhere", 4));

        assertThatThrownBy(() -> Statistics.measure(calibrator, ROWS, Set.of(unknown), file, ORIGIN))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("nowhere");
        assertThat(Files.readAllBytes(file)).isEqualTo(before);
        assertThat(folder.toFile().list()).containsExactlyInAnyOrder("some.safetensors");
    }
}
