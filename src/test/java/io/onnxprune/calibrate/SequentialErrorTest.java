// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.calibrate.SequentialRun.InputStatistics;
import io.onnxprune.calibrate.SequentialRun.Reference;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.BlockRemover;
import io.onnxprune.rewrite.Slicer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Errors against a reference agree with runs of both entire models. */
@Tag("ort")
@Tag("slow")
class SequentialErrorTest {
    private static final int LENGTH = 9;
    private static final int ROWS = 3;
    private static final double SMALL = 1e-3;
    private static final List<long[]> TOKENS = Gathered.randomRows(ROWS, LENGTH, 32, 5);

    @TempDir
    private Path folder;

    /** Stores the statistics of layers that errors describe, and zeroes some rows of their weights. */
    private static final class Cutter implements SequentialRun.Editor {
        private final Map<String, Tensor> edited = new HashMap<>();
        private final List<LoweredLinear> measured = new ArrayList<>();
        private final List<Runnable> checks = new ArrayList<>();
        /** The number of errors that exceed rounding. */
        private int telling;

        private final Calibrator model;
        private final Calibrator reference;
        private final int[] kept;

        Cutter(Calibrator model, Calibrator reference, int[] kept) {
            this.model = model;
            this.reference = reference;
            this.kept = kept;
        }

        @Override
        public boolean wants(LoweredLinear linear) {
            return true;
        }

        @Override
        public Map<String, Tensor> edit(List<LoweredLinear> sharing, InputStatistics statistics) {
            if (statistics.error() == null) {
                assertThat(statistics.totalError()).isNull();
                assertThat(statistics.obstacles()).containsOnlyKeys(sharing);
                return Map.of();
            }
            assertThat(sharing).hasSize(1);
            assertThat(statistics.obstacles()).isEmpty();
            LoweredLinear linear = sharing.get(0);
            measured.add(linear);
            Map<String, Tensor> before = new HashMap<>(edited);
            checks.add(() -> check(linear, statistics, before));
            Tensor weight = model.program().initializers().get(linear.weight()).constant();
            float[] values = weight.toFloats();
            int row = values.length / linear.input().width();
            for (int i = 0; i < linear.input().width(); i += 3) {
                java.util.Arrays.fill(values, i * row, (i + 1) * row, 0f);
            }
            Map<String, Tensor> here = Map.of(linear.weight(), Tensor.ofFloats(weight.dtype(), weight.shape(), values));
            edited.putAll(here);
            return here;
        }

        private void check(LoweredLinear linear, InputStatistics statistics, Map<String, Tensor> weights) {
            String end = endOfPiece(model, linear);
            Map<String, float[]> actual =
                    WholeRun.values(model, weights, List.of(linear.input().value(), end), TOKENS);
            String referenceValue = referenceValue(end);
            float[] expected = WholeRun.values(reference, Map.of(), List.of(referenceValue), TOKENS)
                    .get(referenceValue);
            float[] stream = actual.get(end);
            int width = statistics.totalError().toFloats().length;
            int referenceWidth = kept == null ? width : expected.length / (stream.length / width);
            float[] x = actual.get(linear.input().value());
            int n = linear.input().width();
            float[] error = new float[n * width];
            float[] total = new float[width];
            int positions = stream.length / width;
            for (int position = 0; position < positions; position++) {
                for (int column = 0; column < width; column++) {
                    int channel = kept == null ? column : kept[column];
                    float e = expected[position * referenceWidth + channel] - stream[position * width + column];
                    total[column] += e;
                    for (int row = 0; row < n; row++) {
                        error[row * width + column] += x[position * n + row] * e;
                    }
                }
            }
            assertThat(statistics.positions()).isEqualTo(positions);
            telling += length(error) > SMALL ? 1 : 0;
            assertNear(statistics.error().toFloats(), error, linear.node());
            assertNear(statistics.totalError().toFloats(), total, linear.node());
        }

        /** The value of the reference that the node of the same name computes. */
        private String referenceValue(String value) {
            String node = model.program().ops().stream()
                    .filter(op -> op.output(0).name().equals(value))
                    .findFirst()
                    .orElseThrow()
                    .node()
                    .name();
            return reference.program().ops().stream()
                    .filter(op -> op.node().name().equals(node))
                    .findFirst()
                    .orElseThrow()
                    .output(0)
                    .name();
        }
    }

    /** Sums of rounding errors are compared by size, others relative to their norm. */
    private static void assertNear(float[] found, float[] expected, String name) {
        if (length(expected) < SMALL) {
            assertThat(length(found)).as(name).isLessThan(SMALL);
        } else {
            assertThat(Gathered.distance(found, expected)).as(name).isLessThan(1e-3);
        }
    }

    private static double length(float[] vector) {
        double squares = 0;
        for (float value : vector) {
            squares += (double) value * value;
        }
        return Math.sqrt(squares);
    }

    /** Sequential and parallel blocks, with biases, fused operators and half weights; in memory and on disk. */
    @ParameterizedTest
    @CsvSource({
        "stories-llama,12,1",
        "gpt-neox-d,4,4000000000",
        "opt-c,4,4000000000",
        "llama-g16-e-fp32,4,4000000000",
        "llama-g16-e-fp16,4,4000000000",
        "stories260k-c,10,4000000000"
    })
    void againstTheWeightsBeforeAnyEdit(String name, int layers, long memory) {
        Calibrator calibrator = calibrator(ModelReader.read(TestModels.file(name)), memory);
        Cutter cutter = new Cutter(calibrator, calibrator, null);

        SequentialRun.run(calibrator, new Reference(calibrator, null), TOKENS, cutter);

        assertThat(cutter.measured).hasSize(layers);
        cutter.checks.forEach(Runnable::run);
        assertThat(cutter.telling).isGreaterThanOrEqualTo(cutter.measured.size() - 1);
        assertThat(folder).isEmptyDirectory();
    }

    /** The model has one block less and half of the residual stream. */
    @ParameterizedTest
    @ValueSource(strings = {"stories-llama-e-fp32", "stories260k-c"})
    void againstTheDenseModel(String name) {
        Structure structure = TestModels.structure(name);
        int width = structure.dimensions().stream()
                .filter(dimension -> dimension.name().equals("hidden"))
                .findFirst()
                .orElseThrow()
                .size();
        int count = structure.stream().blocks().size();
        int[] kept = IntStream.range(0, width / 2).map(i -> 2 * i).toArray();
        int[] blocks = IntStream.range(0, count).filter(i -> i != 3 && i != 6).toArray();
        Plan plan = new Plan("", Map.of("hidden", kept), null, blocks);
        Model small = BlockRemover.remove(structure, plan, Slicer.slice(structure, plan.keep(structure), Map.of()));
        Calibrator model = calibrator(small, Gathered.AMPLE);
        Calibrator reference = calibrator(structure.analysis().program().model(), Gathered.AMPLE);
        Cutter cutter = new Cutter(model, reference, kept);

        SequentialRun.run(model, new Reference(reference, kept), TOKENS, cutter);

        assertThat(cutter.measured).hasSize(count - 2);
        cutter.checks.forEach(Runnable::run);
        assertThat(cutter.telling).isGreaterThanOrEqualTo(cutter.measured.size() - 1);
    }

    /** The reason for each linear layer that an error does not describe. */
    @Test
    void obstaclesAreNamed() {
        Map<LoweredLinear, String> gemma = obstacles("gemma2-d");
        assertThat(gemma).hasSize(14);
        assertThat(gemma.values())
                .filteredOn(obstacle -> obstacle.contains("post_attention_layernorm"))
                .hasSize(2)
                .allMatch(obstacle -> obstacle.startsWith("its result goes through node "));
        assertThat(gemma.values())
                .filteredOn(obstacle -> obstacle.contains("post_feedforward_layernorm"))
                .hasSize(2);

        Map<LoweredLinear, String> mixture = obstacles("qwen3-moe-d");
        assertThat(mixture.values())
                .filteredOn(obstacle -> obstacle.contains("/mlp/") && obstacle.contains("(Mul)"))
                .hasSizeGreaterThanOrEqualTo(8);
        assertThat(mixture.values())
                .filteredOn("no residual stream comes after it"::equals)
                .hasSize(1);
    }

    @Test
    void aReferenceWithoutSuchValuesIsAnObstacle() {
        Calibrator model = calibrator(ModelReader.read(TestModels.file("stories-llama")), Gathered.AMPLE);
        Calibrator other = calibrator(ModelReader.read(TestModels.file("gpt-neox-d")), Gathered.AMPLE);
        Map<LoweredLinear, String> found = new LinkedHashMap<>();

        SequentialRun.run(model, new Reference(other, null), TOKENS, collector(found));

        assertThat(found).hasSize(43);
        assertThat(found.values())
                .filteredOn(
                        obstacle -> obstacle.equals("the reference has no value like \"/model/layers.0/Add_output_0\""))
                .hasSize(4);
    }

    private Map<LoweredLinear, String> obstacles(String name) {
        Calibrator calibrator = calibrator(ModelReader.read(TestModels.file(name)), Gathered.AMPLE);
        Map<LoweredLinear, String> found = new LinkedHashMap<>();
        SequentialRun.run(calibrator, new Reference(calibrator, null), TOKENS, collector(found));
        return found;
    }

    private static SequentialRun.Editor collector(Map<LoweredLinear, String> obstacles) {
        return new SequentialRun.Editor() {
            @Override
            public boolean wants(LoweredLinear linear) {
                return true;
            }

            @Override
            public Map<String, Tensor> edit(List<LoweredLinear> sharing, InputStatistics statistics) {
                assertThat(statistics.error() == null)
                        .isEqualTo(statistics.obstacles().size() == sharing.size());
                obstacles.putAll(statistics.obstacles());
                return Map.of();
            }
        };
    }

    private static String endOfPiece(Calibrator calibrator, LoweredLinear linear) {
        DataFlow flow = calibrator.flow(List.of());
        Map<Op, LoweredLinear> linears = LoweredLinears.byOp(flow);
        return new Partition(flow, calibrator.end())
                .pieces().stream()
                        .filter(piece -> piece.ops().stream().anyMatch(op -> linear.equals(linears.get(op))))
                        .findFirst()
                        .orElseThrow()
                        .output()
                        .name();
    }

    private Calibrator calibrator(Model model, long memory) {
        return Calibrator.of(
                model, TestModels.runtime(), new CalibrationOptions(memory, folder, false), LENGTH, Log.NONE);
    }
}
