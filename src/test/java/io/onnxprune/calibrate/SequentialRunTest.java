// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.calibrate.SequentialRun.InputStatistics;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.BiFunction;
import java.util.function.Predicate;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** A sequential run measures the same statistics as a run of the entire model with the current weights. */
@Tag("ort")
@Tag("slow")
class SequentialRunTest {
    private static final int LENGTH = 9;
    private static final int VOCABULARY = 32;

    @TempDir
    private Path folder;

    static List<String> models() {
        return TestModels.names();
    }

    /** Stores the statistics of each input, and edits weights by a given rule. */
    private record Recorder(
            Predicate<LoweredLinear> wanted,
            BiFunction<List<LoweredLinear>, InputStatistics, Map<String, Tensor>> edit,
            List<LoweredLinear> seen,
            Map<Tap, float[]> sums)
            implements SequentialRun.Editor {
        Recorder(
                Predicate<LoweredLinear> wanted,
                BiFunction<List<LoweredLinear>, InputStatistics, Map<String, Tensor>> edit) {
            this(wanted, edit, new ArrayList<>(), new LinkedHashMap<>());
        }

        @Override
        public boolean wants(LoweredLinear linear) {
            return wanted.test(linear);
        }

        @Override
        public Map<String, Tensor> edit(List<LoweredLinear> sharing, InputStatistics statistics) {
            seen.addAll(sharing);
            Activation input = sharing.get(0).input();
            assertThat(sharing).allMatch(linear -> linear.input().equals(input));
            put(new Tap.SecondMoment(input), statistics.secondMoment().toFloats());
            put(new Tap.Total(input), statistics.total().toFloats());
            put(new Tap.Positions(input), new float[] {statistics.positions()});
            return edit.apply(sharing, statistics);
        }

        private void put(Tap tap, float[] sum) {
            assertThat(sums.put(tap, sum)).as(tap.toString()).isNull();
        }
    }

    @ParameterizedTest
    @MethodSource("models")
    void withoutEditsStatisticsAreThoseOfTheDenseModel(String name) {
        Model model = ModelReader.read(TestModels.file(name));
        List<long[]> rows = Gathered.randomRows(3, LENGTH, VOCABULARY, 7);
        List<LoweredLinear> linears =
                calibrator(model, Gathered.AMPLE, Log.NONE).linears();
        Recorder recorder = new Recorder(linear -> true, (sharing, statistics) -> Map.of());
        RecordedLog log = new RecordedLog();

        SequentialRun.run(calibrator(model, Gathered.AMPLE, log), null, rows, recorder);

        assertThat(recorder.seen).containsExactlyInAnyOrderElementsOf(linears).isNotEmpty();
        assertThat(log.lines().get(0)).contains(" segments in ", " forward passes, ");
        assertSame(recorder.sums, model, rows);
    }

    /**
     * Statistics do not depend on whether values between pieces are in memory or in a file, or on the size of batches.
     */
    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "qwen3-moe-d", "gpt-neox-d", "opt-c"})
    void memoryChangesNothingButBatches(String name) {
        Model model = ModelReader.read(TestModels.file(name));
        List<long[]> rows = Gathered.randomRows(5, LENGTH, VOCABULARY, 8);
        Recorder recorder = new Recorder(linear -> true, (sharing, statistics) -> Map.of());
        RecordedLog log = new RecordedLog();

        SequentialRun.run(calibrator(model, Gathered.SCANT, log), null, rows, recorder);

        assertThat(log.lines().get(0)).contains(" on disk", " 1 row at a time");
        assertThat(folder).isEmptyDirectory();
        assertSame(recorder.sums, model, rows);
    }

    /**
     * The last linear layer of each piece loses rows. All statistics are those of the model with the resulting weights.
     */
    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "gpt-neox-d", "opt-c", "llama-g16-e-fp16", "phi3-d"})
    void laterPiecesSeeTheEditedWeights(String name) {
        Model model = ModelReader.read(TestModels.file(name));
        List<long[]> rows = Gathered.randomRows(3, LENGTH, VOCABULARY, 9);
        Calibrator calibrator = calibrator(model, Gathered.AMPLE, Log.NONE);
        Map<String, Tensor> initializers = new LinkedHashMap<>(model.graph().initializers());
        Set<LoweredLinear> last = lastOfEachPiece(calibrator);
        Recorder recorder = new Recorder(last::contains, (sharing, statistics) -> {
            Map<String, Tensor> edited = new LinkedHashMap<>();
            for (LoweredLinear linear : sharing) {
                edited.put(linear.weight(), halved(initializers.get(linear.weight())));
            }
            initializers.putAll(edited);
            return edited;
        });

        SequentialRun.run(calibrator, null, rows, recorder);

        assertThat(recorder.seen).containsExactlyElementsOf(last).hasSizeGreaterThan(2);
        Gathered before = Gathered.gather(model, rows, recorder.sums.keySet(), Gathered.AMPLE, folder);
        Tap.SecondMoment end =
                new Tap.SecondMoment(recorder.seen.get(last.size() - 1).input());
        assertThat(Gathered.distance(recorder.sums.get(end), before.sums().get(end)))
                .isGreaterThan(0.01);
        assertSame(recorder.sums, model.withGraph(model.graph().withInitializers(initializers)), rows);
    }

    /** An edit before the measured layer of a piece takes effect even if the values there were stored before. */
    @ParameterizedTest
    @ValueSource(longs = {Gathered.AMPLE, Gathered.SCANT})
    void editsBeforeTheLayerTakeEffect(long memory) {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(3, LENGTH, VOCABULARY, 12);
        Calibrator calibrator = calibrator(model, memory, Log.NONE);
        LoweredLinear before = calibrator.linears().get(2);
        Set<LoweredLinear> last = lastOfEachPiece(calibrator);
        Tensor changed = halved(model.graph().initializers().get(before.weight()));
        Map<Tap, float[]> first = new LinkedHashMap<>();
        Recorder recorder = new Recorder(last::contains, (sharing, statistics) -> Map.of(before.weight(), changed));

        SequentialRun.run(calibrator, null, rows, recorder);

        for (Tap tap : List.copyOf(recorder.sums.keySet()).subList(0, 3)) {
            first.put(tap, recorder.sums.remove(tap));
        }
        assertSame(first, model, rows);
        Map<String, Tensor> initializers = new LinkedHashMap<>(model.graph().initializers());
        initializers.put(before.weight(), changed);
        assertSame(recorder.sums, model.withGraph(model.graph().withInitializers(initializers)), rows);
        assertThat(Gathered.gather(model, rows, recorder.sums.keySet(), memory, folder)
                        .sums())
                .anySatisfy((tap, sum) -> assertThat(Gathered.distance(sum, recorder.sums.get(tap)))
                        .isGreaterThan(0.01));
    }

    private static Set<LoweredLinear> lastOfEachPiece(Calibrator calibrator) {
        DataFlow flow = calibrator.flow(List.of());
        Map<Op, LoweredLinear> linears = LoweredLinears.byOp(flow);
        Set<LoweredLinear> last = new LinkedHashSet<>();
        for (Partition.Piece piece : new Partition(flow, calibrator.end()).pieces()) {
            piece.ops().stream()
                    .filter(linears::containsKey)
                    .reduce((earlier, later) -> later)
                    .ifPresent(op -> last.add(linears.get(op)));
        }
        return last;
    }

    private static Tensor halved(Tensor weight) {
        float[] values = weight.toFloats();
        for (int i = 0; i < values.length; i += 2) {
            values[i] = 0;
        }
        return Tensor.ofFloats(weight.dtype(), weight.shape(), values);
    }

    @Test
    void onlyPiecesUpToTheLastSelectedLayerAreRun() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(4, LENGTH, VOCABULARY, 10);
        List<LoweredLinear> linears =
                calibrator(model, Gathered.AMPLE, Log.NONE).linears();
        LoweredLinear first = linears.get(3);
        RecordedLog log = new RecordedLog();
        Recorder one = new Recorder(first::equals, (sharing, statistics) -> Map.of());
        Recorder none = new Recorder(linear -> false, (sharing, statistics) -> Map.of());

        SequentialRun.run(calibrator(model, Gathered.AMPLE, log), null, rows, one);
        long steps = log.steps();
        SequentialRun.run(calibrator(model, Gathered.AMPLE, log), null, rows, none);

        assertThat(one.seen).containsExactly(first);
        assertThat(log.lines().get(0)).contains("through 14 segments in 0.1 forward passes");
        assertThat(steps).isPositive().isLessThan(4 * LENGTH / 5);
        assertThat(none.seen).isEmpty();
        assertThat(log.steps()).isEqualTo(steps);
    }

    /**
     * The part of a piece before its layers runs once if there is memory to store its values, and several times
     * otherwise.
     */
    @Test
    void memorySavesRecomputation() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(4, LENGTH, VOCABULARY, 10);
        Map<Long, Long> steps = new LinkedHashMap<>();
        for (long memory : List.of(Gathered.AMPLE, Gathered.SCANT)) {
            RecordedLog log = new RecordedLog();
            Calibrator calibrator = calibrator(model, memory, log);
            Recorder recorder = new Recorder(lastOfEachPiece(calibrator)::contains, (sharing, statistics) -> Map.of());
            SequentialRun.run(calibrator, null, rows, recorder);
            steps.put(memory, log.steps());
        }

        assertThat(steps.get(Gathered.AMPLE)).isLessThan(steps.get(Gathered.SCANT) * 3 / 4);
    }

    @Test
    void aSecondMomentBeyondOneBufferIsRefused() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(2, LENGTH, VOCABULARY, 10);
        Tap tap = new Tap.SecondMoment(new Activation("wide", 30_000));

        assertThatThrownBy(() -> Gathered.gather(model, rows, List.of(tap), Gathered.AMPLE, folder))
                .isInstanceOf(UserException.class)
                .hasMessageContainingAll("\"wide\" has 30000 channels", "2 GiB");
    }

    @Test
    void contentsOfAnotherFormAreRefused() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(2, LENGTH, VOCABULARY, 11);
        Tensor scalar = Tensor.ofFloats(DType.FLOAT, new long[] {1}, 1);
        Recorder form = new Recorder(
                linear -> true, (sharing, statistics) -> Map.of(sharing.get(0).weight(), scalar));
        Recorder name = new Recorder(linear -> true, (sharing, statistics) -> Map.of("nothing", scalar));

        assertThatThrownBy(() -> SequentialRun.run(calibrator(model, Gathered.AMPLE, Log.NONE), null, rows, form))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("float[1]");
        assertThatThrownBy(() -> SequentialRun.run(calibrator(model, Gathered.AMPLE, Log.NONE), null, rows, name))
                .isInstanceOf(IllegalArgumentException.class)
                .hasMessageContaining("no initializer \"nothing\"");
    }

    private void assertSame(Map<Tap, float[]> found, Model model, List<long[]> rows) {
        Gathered expected = Gathered.gather(model, rows, found.keySet(), Gathered.AMPLE, folder);
        assertThat(expected.sums()).hasSameSizeAs(found);
        found.forEach(
                (tap, sum) -> assertThat(Gathered.distance(sum, expected.sums().get(tap)))
                        .as(tap + " " + Arrays.toString(Arrays.copyOf(sum, 4)))
                        .isLessThan(1e-5));
    }

    private Calibrator calibrator(Model model, long memory, Log log) {
        return Calibrator.of(model, TestModels.runtime(), new CalibrationOptions(memory, folder, false), LENGTH, log);
    }
}
