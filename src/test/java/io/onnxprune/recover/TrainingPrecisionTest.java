// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.diag.Log;
import io.onnxprune.eval.Example;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.Widening;
import io.onnxprune.lower.ProductPrecision;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.recover.TrainingOptions.Mode;
import io.onnxprune.recover.TrainingOptions.Schedule;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import io.onnxprune.runtime.RuntimeOptions.Precision;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Random;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Training with products in 16-bit types, and with frozen weights that stay half precision. */
@Tag("ort")
@Tag("slow")
class TrainingPrecisionTest {
    private static final int LENGTH = 12;
    private static final int STEPS = 4;

    @TempDir
    private Path folder;

    private Trainable adapters(String name, java.util.function.UnaryOperator<Model> frozen) {
        Model model = ModelReader.read(TestModels.file(name));
        CalibrationOptions calibration = new CalibrationOptions(CalibrationOptions.DEFAULT_MEMORY, folder, false);
        Calibrator calibrator = Calibrator.of(model, TestModels.runtime(), calibration, LENGTH, Log.NONE);
        return Trainable.adapters(frozen.apply(calibrator.lowered()), calibrator.linears(), 2, 4, 0, 0);
    }

    private List<EvalPoint> train(Trainable trainable, OnnxRuntime runtime, String name) {
        TrainingOptions options = new TrainingOptions(
                new TrainingOptions.Trained(Mode.LORA, 2, 4, 0, List.of("all")),
                new TrainingOptions.Optimizer(5e-3, Schedule.CONSTANT, OptionalInt.of(0), 0, 1),
                new TrainingOptions.Loop(8, 8, 1, OptionalInt.of(STEPS), 1, 0),
                new TrainingOptions.Distillation(1, 1),
                0,
                0);
        List<Example> rows = new ArrayList<>();
        Random random = new Random(3);
        for (int i = 0; i < 8; i++) {
            rows.add(Example.whole(random.longs(LENGTH, 1, 40).toArray()));
        }
        Trainer.Setup setup = new Trainer.Setup(trainable, trainable, LENGTH, rows, List.of(), Optional.empty());
        try (Trainer trainer = new Trainer(setup, options, folder.resolve(name), false, runtime, Log.NONE)) {
            return trainer.run().curve();
        }
    }

    /** Before the first step the evaluation is the same, because it is float32. */
    @Test
    void bfloat16TrainsLikeFloat32() {
        Trainable trainable = adapters("stories-llama", Widening::widenInitializers);
        List<EvalPoint> exact = train(trainable, TestModels.runtime(), "exact");
        OnnxRuntime rounding = OnnxRuntime.open(RuntimeOptions.cpu().with(Precision.BFLOAT16));

        List<EvalPoint> rounded = train(trainable, rounding, "rounded");

        assertThat(rounded).hasSize(STEPS + 1);
        assertThat(rounded.get(0).heldOut()).isEqualTo(exact.get(0).heldOut());
        for (int step = 1; step <= STEPS; step++) {
            assertThat(rounded.get(step).heldOut()).isNotEqualTo(exact.get(step).heldOut());
            assertThat(rounded.get(step).heldOut()).isCloseTo(exact.get(step).heldOut(), within(0.02));
        }
        assertThat(rounded.get(STEPS).heldOut()).isLessThan(rounded.get(0).heldOut());
    }

    /** The form for a device: the weights stay half, and every use has its own cast. */
    @ParameterizedTest
    @ValueSource(strings = {"llama-g16-e-fp16", "llama-mha-e-mha16"})
    void frozenWeightsMayStayHalf(String name) {
        List<EvalPoint> widened = train(adapters(name, Widening::widenInitializers), TestModels.runtime(), "wide");
        Trainable stored = adapters(name, Widening::castAtUse);
        assertThat(stored.model().graph().initializers().values())
                .filteredOn(tensor -> tensor.rank() == 2 && tensor.elements() > 512)
                .extracting(Tensor::dtype)
                .contains(DType.FLOAT16);

        List<EvalPoint> half = train(stored, TestModels.runtime(), "half");

        for (int step = 0; step <= STEPS; step++) {
            assertThat(half.get(step).heldOut()).isCloseTo(widened.get(step).heldOut(), within(1e-4));
        }
        assertThatCode(() -> TestModels.runtime()
                        .train(Trainer.files(folder.resolve("half")), true)
                        .close())
                .doesNotThrowAnyException();
    }

    /** The CPU provider takes float16 products, so it shows whether the types of the form for a GPU fit. */
    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "llama-g16-e-fp16", "opt-c", "gpt2-cb", "phi3-d"})
    void theFormForAGpuHasFittingTypes(String name) {
        RuntimeOptions cuda =
                new RuntimeOptions(RuntimeOptions.Provider.CUDA, 0, 0, Optional.empty(), Precision.FLOAT16);
        Trainable trainable = adapters(name, model -> model);
        Model training = TrainingGraph.training(trainable, Optional.empty(), TestModels.runtime(), Log.NONE);

        Model written = Widening.castAtUse(ProductPrecision.of(training, Map.of(), Set.of(), cuda));

        assertThat(written.graph().nodes())
                .filteredOn(node -> node.is("MatMul") || node.is("Gemm"))
                .hasSizeGreaterThan(trainable.adapters().size())
                .allSatisfy(node -> assertThat(node.output(0)).startsWith("onnx_prune_precision_"));
        assertThatCode(() -> TestModels.runtime().open(written, true).close()).doesNotThrowAnyException();
    }
}
