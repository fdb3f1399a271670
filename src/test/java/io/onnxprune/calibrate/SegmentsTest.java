// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** A model that runs in segments yields the same statistics as in one piece. */
@Tag("ort")
@Tag("slow")
class SegmentsTest {
    private static final int LENGTH = 9;
    private static final int VOCABULARY = 32;

    @TempDir
    private Path folder;

    static List<String> models() {
        return TestModels.names();
    }

    @ParameterizedTest
    @MethodSource("models")
    void cutAsOftenAsPossible(String name) {
        Model model = ModelReader.read(TestModels.file(name));
        List<long[]> rows = Gathered.randomRows(3, LENGTH, VOCABULARY, 7);
        Set<Tap> taps = Gathered.everyTap(model, LENGTH, true);
        assertThat(taps).isNotEmpty();

        Gathered single = Gathered.gather(model, rows, taps, Gathered.AMPLE, folder);
        Gathered cut = Gathered.gather(model, rows, taps, Gathered.SCANT, folder);

        assertThat(single.messages().get(0)).contains(" 1 segment,");
        assertThat(cut.messages().get(0)).contains(" segments,");
        assertThat(cut.sums().keySet()).isEqualTo(taps);
        for (Tap tap : taps) {
            assertThat(Gathered.distance(cut.sums().get(tap), single.sums().get(tap)))
                    .as(tap.toString())
                    .isLessThan(1e-4);
        }
        for (int row = 0; row < rows.size(); row++) {
            assertThat(Math.abs(cut.loss()[row] - single.loss()[row])).isLessThan(1e-4);
        }
    }

    @ParameterizedTest
    @MethodSource("models")
    void batchesYieldTheStatisticsOfSingleRows(String name) {
        Model model = ModelReader.read(TestModels.file(name));
        List<long[]> rows = Gathered.randomRows(3, LENGTH, VOCABULARY, 6);
        Set<Tap> taps = Gathered.everyTap(model, LENGTH, true);
        taps.removeIf(Tap.SquaredGradient.class::isInstance);
        Map<Tap, float[]> expected = new LinkedHashMap<>();
        for (long[] row : rows) {
            Gathered.gather(model, List.of(row), taps, Gathered.AMPLE, folder)
                    .sums()
                    .forEach((tap, sum) -> expected.merge(tap, sum, SegmentsTest::sum));
        }

        Gathered found = Gathered.gather(model, rows, taps, Gathered.AMPLE, folder);

        taps.forEach(tap -> assertThat(Gathered.distance(found.sums().get(tap), expected.get(tap)))
                .as(tap.toString())
                .isLessThan(1e-4));
    }

    private static float[] sum(float[] left, float[] right) {
        float[] sum = left.clone();
        for (int i = 0; i < sum.length; i++) {
            sum[i] += right[i];
        }
        return sum;
    }

    @Test
    void forwardStatisticsNeedNoGradients() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(5, LENGTH, VOCABULARY, 8);
        Set<Tap> forward = Gathered.everyTap(model, LENGTH, false);
        Set<Tap> all = Gathered.everyTap(model, LENGTH, true);

        Gathered expected = Gathered.gather(model, rows, all, Gathered.AMPLE, folder);
        for (long memory : new long[] {Gathered.AMPLE, Gathered.SCANT}) {
            Gathered found = Gathered.gather(model, rows, forward, memory, folder);
            assertThat(found.loss()).isEmpty();
            assertThat(found.sums()).hasSameSizeAs(forward);
            forward.forEach(tap -> assertThat(Gathered.distance(
                            found.sums().get(tap), expected.sums().get(tap)))
                    .as(tap.toString())
                    .isLessThan(1e-5));
        }
    }

    @Test
    void salienceIsTheProductOfWeightsAndGradientsSummedOverEachOutput() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(4, LENGTH, VOCABULARY, 9);
        Set<Tap> taps = Gathered.everyTap(model, LENGTH, true);
        Gathered found = Gathered.gather(model, rows, taps, Gathered.AMPLE, folder);
        List<LoweredLinear> linears = Calibrator.of(
                        model,
                        TestModels.runtime(),
                        new CalibrationOptions(Gathered.AMPLE, folder, false),
                        LENGTH,
                        io.onnxprune.diag.Log.NONE)
                .linears();

        assertThat(linears).hasSize(6 * 7 + 1);
        for (LoweredLinear linear : linears) {
            float[] weights = model.graph().initializers().get(linear.weight()).toFloats();
            float[] gradients = found.sums().get(new Tap.Gradient(linear.weight()));
            int width = linear.output().width();
            float[] expected = new float[width];
            for (int i = 0; i < weights.length; i++) {
                expected[i % width] += weights[i] * gradients[i];
            }
            assertThat(Gathered.distance(found.sums().get(new Tap.Salience(linear.output())), expected))
                    .as(linear.node())
                    .isLessThan(1e-4);
        }
    }

    @Test
    void oneThreadGivesTheSameBits() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(6, LENGTH, VOCABULARY, 10);
        Set<Tap> taps = Gathered.everyTap(model, LENGTH, true);
        OnnxRuntime single = OnnxRuntime.open(new RuntimeOptions(
                RuntimeOptions.Provider.CPU, 0, 1, Optional.empty(), RuntimeOptions.Precision.FLOAT32));

        Gathered first = Gathered.gather(model, rows, taps, Gathered.SCANT, folder, single);
        Gathered second = Gathered.gather(model, rows, taps, Gathered.SCANT, folder, single);

        assertThat(second.loss()).isEqualTo(first.loss());
        taps.forEach(
                tap -> assertThat(second.sums().get(tap)).isEqualTo(first.sums().get(tap)));
    }

    @Test
    void aLossThatIsNotFiniteNamesTheRowAndTheNode() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(2, LENGTH, VOCABULARY, 11);
        Set<Tap> taps = Gathered.everyTap(model, LENGTH, true);
        LoweredLinear broken = Calibrator.of(
                        model,
                        TestModels.runtime(),
                        new CalibrationOptions(Gathered.AMPLE, folder, false),
                        LENGTH,
                        io.onnxprune.diag.Log.NONE)
                .linears()
                .get(20);
        Map<String, Tensor> initializers = new LinkedHashMap<>(model.graph().initializers());
        Tensor weight = initializers.get(broken.weight());
        float[] infinite = weight.toFloats();
        infinite[5] = Float.POSITIVE_INFINITY;
        initializers.put(broken.weight(), Tensor.ofFloats(DType.FLOAT, weight.shape(), infinite));
        Model damaged = model.withGraph(model.graph().withInitializers(initializers));

        assertThatThrownBy(() -> Gathered.gather(damaged, rows, taps, Gathered.SCANT, folder))
                .isInstanceOf(UserException.class)
                .hasMessageStartingWith("the loss of calibration row 1 of 2 (beginning " + rows.get(0)[0] + ", ")
                .hasMessageContainingAll(
                        " is NaN, from node ", "(MatMul) on, whose weight \"" + broken.weight() + "\" holds NaN");
    }

    @Test
    void anUnknownValueIsRefused() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(2, LENGTH, VOCABULARY, 12);

        assertThatThrownBy(() ->
                        Gathered.gather(model, rows, List.of(new Tap.Gradient("nothing")), Gathered.AMPLE, folder))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("\"nothing\" is not computed between the tokens and the logits");
    }

    @Test
    void theWorkFolderIsEmptyAfterARun() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(3, LENGTH, VOCABULARY, 13);

        Gathered found = Gathered.gather(model, rows, Gathered.everyTap(model, LENGTH, true), Gathered.SCANT, folder);

        assertThat(found.messages().get(0)).contains(" on disk");
        assertThat(folder).isEmptyDirectory();
    }
}
