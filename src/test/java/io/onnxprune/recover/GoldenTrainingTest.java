// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.autodiff.NumpyArchive;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.diag.Log;
import io.onnxprune.eval.Example;
import io.onnxprune.eval.TokenData;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.lower.Lowering;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.recover.Trainable.Adapter;
import io.onnxprune.recover.TrainingOptions.Mode;
import io.onnxprune.recover.TrainingOptions.Schedule;
import java.io.IOException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The first steps of a training, compared with PyTorch's AdamW from the same adapters (scripts/golden_lora.py). */
@Tag("ort")
@Tag("slow")
class GoldenTrainingTest {
    private static final Path GOLDEN = Path.of("src", "test", "resources", "golden_lora.npz");
    private static final int RANK = 2;
    private static final double ALPHA = 4;

    @TempDir
    private Path folder;

    @Test
    void everyLossMatchesTheGoldenOne() throws IOException {
        double[] losses = NumpyArchive.read(GOLDEN, "losses").get("").values();
        Map<String, NumpyArchive.Array> starts = NumpyArchive.read(GOLDEN, "start/");
        List<long[]> rows = TokenData.read(Path.of("testmodels", "tokens.jsonl"), Optional.empty(), OptionalInt.empty())
                .rows();
        int length = rows.get(0).length;
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        Model lowered = Lowering.lower(model, TestModels.runtime(), length, Log.NONE);
        CalibrationOptions calibration = new CalibrationOptions(CalibrationOptions.DEFAULT_MEMORY, folder, false);
        List<LoweredLinear> linears =
                Calibrator.of(model, TestModels.runtime(), calibration, length, Log.NONE).linears().stream()
                        .filter(linear -> starts.containsKey(linear.weight()))
                        .toList();
        assertThat(linears).hasSameSizeAs(starts.keySet()).hasSize(42);
        Trainable trainable = Trainable.adapters(lowered, linears, RANK, ALPHA, 0, 0);
        Map<String, Tensor> parameters = new LinkedHashMap<>(trainable.parameters());
        for (Adapter adapter : trainable.adapters()) {
            NumpyArchive.Array start = starts.get(adapter.linear().weight());
            float[] values = new float[start.values().length];
            for (int i = 0; i < values.length; i++) {
                values[i] = (float) start.values()[i];
            }
            parameters.put(adapter.down(), Tensor.ofFloats(DType.FLOAT, start.shape(), values));
        }
        Trainable started = trainable.with(parameters);
        TrainingOptions options = new TrainingOptions(
                new TrainingOptions.Trained(Mode.LORA, RANK, ALPHA, 0, List.of("all")),
                new TrainingOptions.Optimizer(5e-3, Schedule.CONSTANT, OptionalInt.of(0), 0, 0),
                new TrainingOptions.Loop(rows.size(), 5, 1, OptionalInt.of(losses.length), 1, 0),
                new TrainingOptions.Distillation(1, 1),
                0,
                0);

        List<Example> examples = rows.stream().map(Example::whole).toList();
        Trainer.Setup setup =
                new Trainer.Setup(started, started, rows.get(0).length, examples, List.of(), Optional.empty());
        try (Trainer trainer = new Trainer(setup, options, folder, false, TestModels.runtime(), Log.NONE)) {
            List<EvalPoint> curve = trainer.run().curve();

            assertThat(curve).hasSize(losses.length + 1);
            for (int step = 0; step < losses.length; step++) {
                assertThat(curve.get(step + 1).loss()).as("step " + step).isCloseTo(losses[step], within(1e-3));
            }
        }
    }
}
