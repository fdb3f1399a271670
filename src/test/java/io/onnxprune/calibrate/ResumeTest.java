// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.io.DataInput;
import java.io.DataOutput;
import java.io.IOException;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** A stopped run resumes and has the same result as an uninterrupted one. */
@Tag("ort")
@Tag("slow")
class ResumeTest {
    /** The file in which equal runs find out about one another. It stays. */
    private static final String LOCKS = ".locks";

    private static final int LENGTH = 8;
    private static final String KEY = "model";

    @TempDir
    private Path folder;

    /** Stores the norm of each gradient, and stops the run after a number of them. */
    private static final class Lengths implements ResumableSink {
        private static final AxisReduction.Term SQUARES =
                (builder, weights, gradients, squares) -> builder.add("Mul", gradients, gradients);

        private final Map<String, Double> found = new TreeMap<>();
        private final int stopAfter;
        private int accepted;

        /** The initializers, if their gradients are reduced in the runtime; null if they are read. */
        private Map<String, Tensor> weights;

        Lengths(int stopAfter) {
            this.stopAfter = stopAfter;
        }

        @Override
        public void accept(String initializer, GradientSums sums) {
            if (accepted++ == stopAfter) {
                throw new IllegalStateException("stopped");
            }
            double length = weights == null ? length(sums.sum()) : length(sums, weights.get(initializer));
            assertThat(found.put(initializer, length)).isNull();
        }

        private static double length(FloatBuffer sum) {
            double total = 0;
            while (sum.hasRemaining()) {
                float value = sum.get();
                total += value * value;
            }
            return total;
        }

        private static double length(GradientSums sums, Tensor tensor) {
            BitSet first = new BitSet();
            first.set(0);
            AxisReduction reduction = new AxisReduction(SQUARES, tensor, new long[] {0}, 0, first);
            double[][] along = RuntimeReduction.of(sums).along(reduction).orElseThrow();
            return Arrays.stream(along[0]).sum();
        }

        @Override
        public void save(DataOutput out) throws IOException {
            out.writeInt(found.size());
            for (Map.Entry<String, Double> entry : found.entrySet()) {
                out.writeUTF(entry.getKey());
                out.writeDouble(entry.getValue());
            }
        }

        @Override
        public void restore(DataInput in) throws IOException {
            for (int count = in.readInt(); count > 0; count--) {
                found.put(in.readUTF(), in.readDouble());
            }
        }
    }

    @ParameterizedTest
    @CsvSource({
        "stories-llama,20,false,false",
        "qwen2-g16-e-fp32,6,false,false",
        "stories-llama,33,true,false",
        "qwen2-g16-e-fp32,6,false,true",
        "stories-llama,33,true,true"
    })
    void resumesFromTheCheckpoint(String name, int stopAfter, boolean squares, boolean inRuntime) throws IOException {
        Model model = ModelReader.read(TestModels.file(name));
        List<long[]> rows = Gathered.randomRows(3, LENGTH, 32, 5);
        Lengths expected = new Lengths(-1);
        Calibrator.Summary uninterrupted = run(model, rows, squares, expected, false, Log.NONE);
        assertThat(folder.toFile().list()).containsOnly(LOCKS);

        Lengths stopped = new Lengths(stopAfter);
        stopped.weights = inRuntime ? weights(model) : null;
        assertThatThrownBy(() -> run(model, rows, squares, stopped, false, Log.NONE))
                .hasMessage("stopped");
        assertThat(checkpoints()).hasSize(1);

        Lengths resumed = new Lengths(expected.found.size() - 1);
        resumed.weights = stopped.weights;
        Calibrator.Summary rest = run(model, rows, squares, resumed, true, Log.NONE);

        assertThat(resumed.accepted).isPositive().isLessThan(expected.accepted);
        assertThat(resumed.found).containsOnlyKeys(expected.found.keySet());
        expected.found.forEach((initializer, length) -> assertThat(resumed.found.get(initializer))
                .isCloseTo(length, org.assertj.core.data.Offset.offset(1e-6 * length)));
        assertThat(rest.loss()).containsExactly(uninterrupted.loss());
        assertThat(checkpoints()).isEmpty();
    }

    @Test
    void otherDataDoNotResume() throws IOException {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        assertThatThrownBy(() ->
                        run(model, Gathered.randomRows(3, LENGTH, 32, 5), false, new Lengths(20), false, Log.NONE))
                .hasMessage("stopped");
        Lengths more = new Lengths(-1);

        run(model, Gathered.randomRows(4, LENGTH, 32, 5), false, more, true, Log.NONE);

        assertThat(more.accepted).isEqualTo(more.found.size());
        assertThat(checkpoints()).hasSize(1);
    }

    @Test
    void anotherPrecisionDoesNotResume() throws IOException {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(3, LENGTH, 32, 5);
        assertThatThrownBy(() -> run(model, rows, false, new Lengths(20), false, Log.NONE))
                .hasMessage("stopped");
        Lengths more = new Lengths(-1);
        OnnxRuntime rounding = OnnxRuntime.open(RuntimeOptions.cpu().with(RuntimeOptions.Precision.BFLOAT16));

        run(calibrator(model, true, rounding, Log.NONE), rows, false, more);

        assertThat(more.accepted).isEqualTo(more.found.size());
        assertThat(checkpoints()).hasSize(1);
    }

    /** A truncated file, or one with a changed byte. */
    @ParameterizedTest
    @CsvSource({"true,0.5", "true,0.999", "false,0.00001", "false,0.01", "false,0.5", "false,0.999"})
    void aDamagedCheckpointIsReported(boolean cut, double share) throws IOException {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(3, LENGTH, 32, 5);
        assertThatThrownBy(() -> run(model, rows, false, new Lengths(20), false, Log.NONE))
                .hasMessage("stopped");
        Path checkpoint = checkpoints().get(0);
        byte[] bytes = Files.readAllBytes(checkpoint);
        int place = (int) Math.max(4, share * bytes.length);
        bytes[place] ^= 0x55;
        Files.write(checkpoint, cut ? java.util.Arrays.copyOf(bytes, place) : bytes);

        assertThatThrownBy(() -> run(model, rows, false, new Lengths(-1), true, Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessageContainingAll("the checkpoint", "is damaged", "--resume");
    }

    private Map<String, Tensor> weights(Model model) {
        CalibrationOptions options = new CalibrationOptions(Gathered.SCANT, folder, false);
        return Calibrator.of(model, TestModels.runtime(), options, LENGTH, Log.NONE)
                .lowered()
                .graph()
                .initializers();
    }

    private Calibrator.Summary run(
            Model model, List<long[]> rows, boolean squares, Lengths sink, boolean resume, Log log) {
        return run(calibrator(model, resume, TestModels.runtime(), log), rows, squares, sink);
    }

    private Calibrator calibrator(Model model, boolean resume, OnnxRuntime runtime, Log log) {
        CalibrationOptions options = new CalibrationOptions(Gathered.SCANT, folder, resume);
        return Calibrator.of(model, runtime, options, LENGTH, log);
    }

    private static Calibrator.Summary run(Calibrator calibrator, List<long[]> rows, boolean squares, Lengths sink) {
        Set<String> initializers = new java.util.TreeSet<>();
        for (LoweredLinear linear : calibrator.linears()) {
            initializers.add(linear.weight());
        }
        return calibrator.gradients(rows, initializers, squares, sink, KEY, 0);
    }

    private List<Path> checkpoints() throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.filter(file -> file.getFileName().toString().startsWith("gradients-"))
                    .toList();
        }
    }
}
