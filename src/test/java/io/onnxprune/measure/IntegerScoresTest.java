// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Magnitude;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.Reduction;
import io.onnxprune.plan.Scores;
import io.onnxprune.plan.ScoresAssert;
import io.onnxprune.plan.Taylor;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/** A model with 8-bit matrices beside one with the same numbers as floats. */
@Tag("ort")
class IntegerScoresTest {
    private static final double ROUNDING = 1e-11;

    @TempDir
    private Path folder;

    /** How the matrices are stored. */
    private enum Storage {
        SIGNED(DType.INT8),
        ONE_ZERO(DType.UINT8),
        ZERO_BY_COLUMN(DType.UINT8);

        private final DType dtype;

        Storage(DType dtype) {
            this.dtype = dtype;
        }

        int zero(int column) {
            return this == SIGNED ? 0 : this == ONE_ZERO ? 117 : 90 + column % 40;
        }

        /** Whether scales are per column; otherwise there is one for the matrix. */
        double scale(int column, double one) {
            return this == ZERO_BY_COLUMN ? one * (1 + column % 3) : one;
        }
    }

    /** Both forms of the model. Every linear layer with a matrix of rank 2 is rewritten. */
    private static final class Twins {
        private final Map<String, Tensor> integers = new LinkedHashMap<>();
        private final Map<String, Tensor> floats = new LinkedHashMap<>();
        private final List<Node> nodes = new ArrayList<>();
        private final Model original =
                TestModels.structure("llama-gqa-d").analysis().program().model();
        private final Storage storage;

        Twins(Storage storage) {
            this.storage = storage;
            floats.putAll(original.graph().initializers());
            integers.putAll(floats);
            for (Node node : original.graph().nodes()) {
                Tensor matrix = node.is("MatMul") ? floats.get(node.input(1)) : null;
                if (matrix == null || matrix.rank() != 2) {
                    nodes.add(node);
                } else {
                    nodes.add(node.withInput(1, store(node.input(1), matrix)));
                }
            }
        }

        private String store(String name, Tensor matrix) {
            int width = (int) matrix.dim(1);
            float[] values = matrix.toFloats();
            double one = IntStream.range(0, values.length)
                            .mapToDouble(i -> Math.abs(values[i]))
                            .max()
                            .orElseThrow()
                    / 80;
            byte[] numbers = new byte[values.length];
            for (int i = 0; i < values.length; i++) {
                double scale = storage.scale(i % width, one);
                int number = (int) Math.round(values[i] / scale);
                numbers[i] = (byte) (number + storage.zero(i % width));
                values[i] = (float) (number * (double) (float) scale);
            }
            floats.put(name, Tensor.ofFloats(DType.FLOAT, matrix.shape(), values));
            integers.remove(name);
            integers.put(name + "_q", Tensor.of(storage.dtype, matrix.shape(), Bytes.of(ByteBuffer.wrap(numbers))));
            int count = storage == Storage.ZERO_BY_COLUMN ? width : 1;
            long[] shape = count == 1 ? new long[0] : new long[] {width};
            float[] scales = new float[count];
            byte[] zeros = new byte[count];
            for (int i = 0; i < count; i++) {
                scales[i] = (float) storage.scale(i, one);
                zeros[i] = (byte) storage.zero(i);
            }
            integers.put(name + "_s", Tensor.ofFloats(DType.FLOAT, shape, scales));
            integers.put(name + "_z", Tensor.of(storage.dtype, shape, Bytes.of(ByteBuffer.wrap(zeros))));
            List<String> inputs = List.of(name + "_q", name + "_s", name + "_z");
            nodes.add(Node.of("", "DequantizeLinear", inputs, List.of(name + "_w"), Map.of()));
            return name + "_w";
        }

        Model withFloats() {
            return original.withGraph(original.graph().withInitializers(floats));
        }

        Model withIntegers() {
            Graph graph = original.graph();
            return original.withGraph(graph.withInitializers(integers).withNodes(nodes));
        }
    }

    private Scores scores(Model model, Taylor.Kind kind, Log log) {
        return scores(model, kind, gradients(model), log);
    }

    private static Scores scores(Model model, Taylor.Kind kind, Taylor.Gradients gradients, Log log) {
        return new Taylor(kind, Reduction.SUM, PruneSet.standard(), gradients).score(TestModels.structure(model), log);
    }

    private Taylor.Gradients gradients(Model model) {
        Random random = new Random(3);
        List<long[]> rows = IntStream.range(0, 3)
                .mapToObj(row -> random.longs(12, 1, 60).toArray())
                .toList();
        CalibrationOptions options = new CalibrationOptions(CalibrationOptions.DEFAULT_MEMORY, folder, false);
        return new ModelGradients(model, rows, TestModels.runtime(), options, "0".repeat(64), Log.NONE);
    }

    @ParameterizedTest
    @EnumSource
    void integersScoreAsTheWeightsThatTheyRepresent(Storage storage) {
        Twins twins = new Twins(storage);
        for (Taylor.Kind kind : List.of(Taylor.Kind.ELEMENT1, Taylor.Kind.MIX)) {
            RecordedLog log = new RecordedLog();
            Scores expected = scores(twins.withFloats(), kind, Log.NONE);
            Scores found = scores(twins.withIntegers(), kind, log);

            assertThat(log.warnings()).isEmpty();
            assertThat(found.units().keySet())
                    .isEqualTo(expected.units().keySet())
                    .isNotEmpty();
            expected.units().forEach((name, units) -> {
                for (int i = 0; i < units.length; i++) {
                    assertThat(units[i]).isPositive();
                    assertThat(found.units().get(name)[i])
                            .as("%s %d", name, i)
                            .isCloseTo(units[i], within(2e-3 * units[i]));
                }
            });
        }
    }

    @ParameterizedTest
    @EnumSource
    void theRuntimeReducesIntegersToTheSameScores(Storage storage) {
        Model model = new Twins(storage).withIntegers();
        for (Taylor.Kind kind : Taylor.Kind.values()) {
            RuntimeGradients inRuntime = new RuntimeGradients(gradients(model));
            ScoresAssert.assertEqual(scores(model, kind, inRuntime, Log.NONE), scores(model, kind, Log.NONE), ROUNDING);
            assertThat(inRuntime.reduced()).anyMatch(name -> name.endsWith("_q"));
            assertThat(inRuntime.read()).isEmpty();
        }
    }

    @Test
    void magnitudeUsesIntegersWhereADimensionHasNoOtherWeights() {
        Structure structure = TestModels.structure(new Twins(Storage.ONE_ZERO).withIntegers());
        RecordedLog log = new RecordedLog();
        Scores scores = new Magnitude(Magnitude.Norm.L1, Reduction.SUM, 1).score(structure, log);

        assertThat(log.warnings()).isEmpty();
        assertThat(scores.units()).isNotEmpty();
        scores.units().values().forEach(units -> assertThat(units).doesNotContain(0));
    }

    /** Floats of 8 bits that are only cast score as the floats that they are. */
    @Test
    void castFloatsOfEightBitsScoreAsFloats() {
        Model original =
                TestModels.structure("llama-g16-e-fp32").analysis().program().model();
        Map<String, Tensor> small = new LinkedHashMap<>(original.graph().initializers());
        Map<String, Tensor> floats = new LinkedHashMap<>(small);
        List<Node> nodes = new ArrayList<>();
        Random random = new Random(9);
        for (Node node : original.graph().nodes()) {
            Tensor matrix = node.is("MatMul") ? floats.get(node.input(1)) : null;
            if (matrix == null || matrix.rank() != 2) {
                nodes.add(node);
                continue;
            }
            byte[] bytes = new byte[(int) matrix.elements()];
            for (int i = 0; i < bytes.length; i++) {
                bytes[i] = (byte) (random.nextInt(0x28) | random.nextInt(2) << 7);
            }
            Tensor stored = Tensor.of(DType.FLOAT8E4M3FN, matrix.shape(), Bytes.of(ByteBuffer.wrap(bytes)));
            small.put(node.input(1), stored);
            floats.put(node.input(1), Tensor.ofFloats(DType.FLOAT, matrix.shape(), stored.toFloats()));
            String cast = node.input(1) + "_cast";
            nodes.add(Node.of(
                    "",
                    "Cast",
                    List.of(node.input(1)),
                    List.of(cast),
                    Map.of("to", new Attribute.Int(DType.FLOAT.code()))));
            nodes.add(node.withInput(1, cast));
        }
        Model eight =
                original.withGraph(original.graph().withInitializers(small).withNodes(nodes));
        Model wide = original.withGraph(original.graph().withInitializers(floats));

        ScoresAssert.assertEqual(
                new Magnitude(Magnitude.Norm.L1, Reduction.SUM, 1).score(TestModels.structure(eight), Log.NONE),
                new Magnitude(Magnitude.Norm.L1, Reduction.SUM, 1).score(TestModels.structure(wide), Log.NONE),
                ROUNDING);
        ScoresAssert.assertEqual(
                scores(eight, Taylor.Kind.ELEMENT1, Log.NONE), scores(wide, Taylor.Kind.ELEMENT1, Log.NONE), 1e-5);
    }
}
