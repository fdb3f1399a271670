// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.calibrate.Partition.Piece;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The similarity of two values does not depend on the cuts between them. */
@Tag("ort")
class SimilarityTest {
    private static final int LENGTH = 9;

    @TempDir
    private Path folder;

    /**
     * Values across one cut, across several, within a piece, and a value with itself; with and without a backward pass.
     */
    @ParameterizedTest
    @CsvSource({
        "stories-llama,4000000000,false",
        "stories-llama,1,false",
        "stories-llama,1,true",
        "llama-g16-e-fp16,1,true",
        "gpt-neox-d,1,false"
    })
    void isThatOfTheValuesThemselves(String name, long memory, boolean gradients) {
        Model model = ModelReader.read(TestModels.file(name));
        List<long[]> rows = Gathered.randomRows(3, LENGTH, 32, 6);
        Calibrator calibrator = calibrator(model);
        List<Tap.Similarity> similarities = similarities(calibrator);
        List<Tap> taps = new ArrayList<>(similarities);
        LoweredLinear first = calibrator.linears().get(0);
        if (gradients) {
            taps.add(new Tap.Gradient(first.weight()));
        }

        Gathered found = Gathered.gather(model, rows, taps, memory, folder);

        assertThat(found.sums()).containsOnlyKeys(taps);
        assertThat(folder).isEmptyDirectory();
        List<String> names = similarities.stream()
                .flatMap(similarity ->
                        Stream.of(similarity.from().value(), similarity.to().value()))
                .toList();
        Map<String, float[]> values = WholeRun.values(calibrator, Map.of(), names, rows);
        for (Tap.Similarity similarity : similarities) {
            String from = similarity.from().value();
            String to = similarity.to().value();
            double expected =
                    cosines(values.get(from), values.get(to), similarity.to().width());
            float[] sum = found.sums().get(similarity);
            assertThat(sum[1]).isEqualTo(3 * LENGTH);
            assertThat((double) sum[0]).as(similarity.toString()).isCloseTo(expected, within(1e-4));
        }
        if (gradients) {
            float[] expected = Gathered.gather(
                            model, rows, List.of(new Tap.Gradient(first.weight())), Gathered.AMPLE, folder)
                    .sums()
                    .get(new Tap.Gradient(first.weight()));
            assertThat(Gathered.distance(found.sums().get(new Tap.Gradient(first.weight())), expected))
                    .isLessThan(1e-4);
        }
    }

    private static List<Tap.Similarity> similarities(Calibrator calibrator) {
        DataFlow flow = calibrator.flow(List.of());
        List<Activation> stream = new ArrayList<>();
        for (Piece piece : new Partition(flow, calibrator.end()).pieces()) {
            long[] shape = flow.trace().shape(piece.output(), 0);
            stream.add(new Activation(piece.output().name(), (int) shape[shape.length - 1]));
        }
        stream.remove(stream.size() - 1);
        List<Tap.Similarity> taps = new ArrayList<>();
        for (int i = 1; i < stream.size(); i++) {
            taps.add(new Tap.Similarity(stream.get(i - 1), stream.get(i)));
        }
        taps.add(new Tap.Similarity(stream.get(0), stream.get(stream.size() - 1)));
        taps.add(new Tap.Similarity(stream.get(1), stream.get(stream.size() - 1)));
        taps.add(new Tap.Similarity(stream.get(1), stream.get(1)));
        for (LoweredLinear linear : calibrator.linears()) {
            if (linear.output().width() == stream.get(0).width()) {
                taps.add(new Tap.Similarity(stream.get(0), linear.output()));
                taps.add(new Tap.Similarity(linear.output(), stream.get(stream.size() - 1)));
            }
        }
        return taps.stream().distinct().toList();
    }

    private static double cosines(float[] from, float[] to, int width) {
        double total = 0;
        for (int start = 0; start < from.length; start += width) {
            double product = 0;
            double left = 0;
            double right = 0;
            for (int i = start; i < start + width; i++) {
                product += (double) from[i] * to[i];
                left += (double) from[i] * from[i];
                right += (double) to[i] * to[i];
            }
            total += product / Math.sqrt(left * right);
        }
        return total;
    }

    @Test
    void valuesThatCannotBeComparedAreRefused() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(2, LENGTH, 32, 6);
        Tap.Similarity pair = similarities(calibrator(model)).get(0);
        Tap turned = new Tap.Similarity(pair.to(), pair.from());
        Tap unknown = new Tap.Similarity(new Activation("nothing", pair.to().width()), pair.to());

        assertThatThrownBy(() -> new Tap.Similarity(new Activation("x", 3), new Activation("y", 4)))
                .isInstanceOf(IllegalArgumentException.class);
        assertThatThrownBy(() -> Gathered.gather(model, rows, List.of(turned), Gathered.SCANT, folder))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("is not computed before");
        assertThatThrownBy(() -> Gathered.gather(model, rows, List.of(unknown), Gathered.SCANT, folder))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("\"nothing\" is not computed between");
    }

    private Calibrator calibrator(Model model) {
        return Calibrator.of(
                model, TestModels.runtime(), new CalibrationOptions(Gathered.AMPLE, folder, false), LENGTH, Log.NONE);
    }
}
