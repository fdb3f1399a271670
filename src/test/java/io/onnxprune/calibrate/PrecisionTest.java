// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UsageException;
import io.onnxprune.dims.Role;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import io.onnxprune.runtime.RuntimeOptions.Precision;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

/** Calibration with products in 16-bit types. */
@Tag("ort")
@Tag("slow")
class PrecisionTest {
    private static final int LENGTH = 9;
    private static final int VOCABULARY = 32;

    @TempDir
    private Path folder;

    static List<String> models() {
        return TestModels.names();
    }

    private static OnnxRuntime in(Precision precision) {
        return OnnxRuntime.open(RuntimeOptions.cpu().with(precision));
    }

    @ParameterizedTest
    @MethodSource("models")
    void statisticsAreCloseAndNotEqual(String name) {
        Model model = ModelReader.read(TestModels.file(name));
        List<long[]> rows = Gathered.randomRows(3, LENGTH, VOCABULARY, 7);
        Set<Tap> taps = Gathered.everyTap(model, LENGTH, true);

        Gathered exact = Gathered.gather(model, rows, taps, Gathered.AMPLE, folder);
        Gathered rounded = Gathered.gather(model, rows, taps, Gathered.AMPLE, folder, in(Precision.BFLOAT16));

        double furthest = 0;
        for (Tap tap : taps) {
            double distance =
                    Gathered.distance(rounded.sums().get(tap), exact.sums().get(tap));
            assertThat(distance).as(tap.toString()).isFinite();
            furthest = Math.max(furthest, distance);
        }
        assertThat(furthest).isGreaterThan(1e-4);
        // Rounded scores choose other experts for some tokens, so nothing bounds the difference there.
        if (TestModels.structure(name).dimensions().stream().noneMatch(found -> found.role() == Role.EXPERTS)) {
            assertThat(furthest).isLessThan(0.5);
            for (int row = 0; row < rows.size(); row++) {
                assertThat(rounded.loss()[row]).isCloseTo(exact.loss()[row], org.assertj.core.data.Offset.offset(0.05));
            }
        }
    }

    /** No product precedes the inputs of the first layer, so their statistics show that sums are not rounded. */
    @ParameterizedTest
    @EnumSource(
            value = Precision.class,
            names = {"BFLOAT16", "FLOAT16"})
    void sumsStayInFloat32(Precision precision) {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(4, LENGTH, VOCABULARY, 8);
        List<Tap> taps = List.copyOf(Gathered.everyTap(model, LENGTH, false));
        Tap first = taps.stream()
                .filter(Tap.SecondMoment.class::isInstance)
                .findFirst()
                .orElseThrow();

        Gathered exact = Gathered.gather(model, rows, taps, Gathered.AMPLE, folder);
        Gathered rounded = Gathered.gather(model, rows, taps, Gathered.AMPLE, folder, in(precision));

        assertThat(Gathered.distance(rounded.sums().get(first), exact.sums().get(first)))
                .isLessThan(1e-6);
    }

    @Test
    void gradientsAreNotComputedInFloat16() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(2, LENGTH, VOCABULARY, 9);
        Set<Tap> taps = Gathered.everyTap(model, LENGTH, true);

        assertThatThrownBy(() -> Gathered.gather(model, rows, taps, Gathered.AMPLE, folder, in(Precision.FLOAT16)))
                .isInstanceOf(UsageException.class)
                .hasMessageContaining("--precision bfloat16");
    }

    /** The CPU provider takes float16 products, so it shows whether the types of the form for a GPU fit. */
    @ParameterizedTest
    @MethodSource("models")
    void theFormForAGpuHasFittingTypes(String name) {
        Model model = ModelReader.read(TestModels.file(name));
        RuntimeOptions cuda =
                new RuntimeOptions(RuntimeOptions.Provider.CUDA, 0, 0, Optional.empty(), Precision.FLOAT16);
        List<long[]> rows = Gathered.randomRows(3, LENGTH, VOCABULARY, 7);
        List<Tap> taps = List.copyOf(Gathered.everyTap(model, LENGTH, true));
        Calibrator calibrator = Calibrator.of(
                model, TestModels.runtime(), new CalibrationOptions(Gathered.AMPLE, folder, false), LENGTH, Log.NONE);
        DataFlow flow = calibrator.flow(taps);
        Objective objective = new Objective.NextToken(rows);
        CalibrationPlan plan =
                CalibrationPlan.of(calibrator.workload(flow, rows.size(), Gathered.AMPLE), taps, objective, true);
        Segment segment = Segment.of(flow, plan.pieces()).get(0);

        Model graph = SegmentGraph.backward(
                        new SegmentGraph.BackwardRequest(
                                segment,
                                taps,
                                new Objective.End(objective, segment, calibrator),
                                false,
                                Set.of(),
                                Set.of(),
                                Set.of()),
                        flow)
                .model(Map.of(), cuda);

        assertThat(plan.pieces()).hasSize(1);
        // Weights that are quantised become float16 only in the graph.
        boolean stored = graph.graph().initializers().values().stream()
                .anyMatch(tensor -> tensor.rank() == 2 && tensor.dtype() == DType.FLOAT16);
        boolean cast = graph.graph().nodes().stream()
                .anyMatch(node -> node.is("Cast") && node.intAttribute("to", 0) == DType.FLOAT16.code());
        assertThat(stored || cast).isTrue();
        assertThatCode(() -> TestModels.runtime().open(graph, true).close()).doesNotThrowAnyException();
    }
}
