// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.eval.Example;
import io.onnxprune.eval.Perplexity;
import io.onnxprune.eval.TokenData;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.option.Extensions;
import io.onnxprune.passes.RecoverPass;
import io.onnxprune.plan.Plan;
import io.onnxprune.recipe.PassStep;
import io.onnxprune.recover.TrainingOptions.Mode;
import io.onnxprune.rewrite.Slicer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Random;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
@Tag("slow")
class RecoveryTest {
    private static final int LENGTH = 16;
    private static final int ROWS = 24;

    @TempDir
    private Path folder;

    /** Rows that count upwards from a random token, which is easy to learn. */
    private static List<Example> rows(int count, long seed) {
        Random random = new Random(seed);
        List<Example> rows = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            long first = 1L + random.nextInt(40);
            long[] row = new long[LENGTH];
            for (int t = 0; t < LENGTH; t++) {
                row[t] = first + t;
            }
            rows.add(Example.whole(row));
        }
        return rows;
    }

    private static TrainingOptions options(Mode mode, int steps, int microBatch, double learningRate, double dropout) {
        return options(
                "train", mode.name().toLowerCase(Locale.ROOT),
                "steps", Integer.toString(steps),
                "eval-every", Integer.toString(steps),
                "micro-batch", Integer.toString(microBatch),
                "lr", Double.toString(learningRate),
                "dropout", Double.toString(dropout));
    }

    /** The options of a recover pass with these keys and values, and with small adapters and batches. */
    private static TrainingOptions options(String... changes) {
        PassStep pass = PassStep.of(
                "recover",
                Map.of("train", "lora", "rank", "4", "alpha", "8", "warmup", "1", "batch", "8"),
                Extensions.BUILT_IN);
        for (int i = 0; i < changes.length; i += 2) {
            pass = pass.with(changes[i], changes[i + 1]);
        }
        return ((RecoverPass) pass.pass()).options(7);
    }

    private Recovery.Result run(Structure structure, TrainingOptions options, Log log) {
        return in(folder, structure, options, false, log);
    }

    @ParameterizedTest
    @ValueSource(strings = {"llama-gqa-d", "opt-c", "glm-d", "gpt2-cb", "llama-g16-e-fp16", "phi3-d"})
    void trainingLowersTheLossOfEveryKindOfModel(String name) {
        Structure structure = TestModels.structure(name);

        Recovery.Result result = run(structure, options(Mode.LORA, 12, 8, 2e-2, 0), Log.NONE);

        assertThat(result.curve()).hasSize(2);
        assertThat(result.best()).isLessThan(result.curve().get(0).heldOut() - 0.3);
        assertThat(loss(updated(structure, result.merged(folder)), rows(6, 2))).isCloseTo(result.best(), within(2e-3));
    }

    @ParameterizedTest
    @EnumSource(
            value = Mode.class,
            names = {"FULL", "NORMS", "BIAS"})
    void weightsThemselvesCanBeTrained(Mode mode) {
        Structure structure = TestModels.structure("opt-c");

        Recovery.Result result = run(structure, options(mode, 12, 8, 2e-2, 0), Log.NONE);

        assertThat(result.best()).isLessThan(result.curve().get(0).heldOut() - 0.02);
        assertThat(loss(updated(structure, result.merged(folder)), rows(6, 2))).isCloseTo(result.best(), within(1e-4));
        boolean matrices = result.merged(folder).keySet().stream()
                .anyMatch(value -> value.constant().rank() == 2);
        assertThat(matrices).isEqualTo(mode == Mode.FULL);
    }

    /** Gradients of micro-batches add up to those of the batch. */
    @Test
    void microBatchesGiveTheSameResult() {
        Structure structure = TestModels.structure("llama-gqa-d");

        Recovery.Result fullBatches = run(structure, options(Mode.LORA, 3, 8, 1e-2, 0), Log.NONE);
        Recovery.Result parts = run(structure, options(Mode.LORA, 3, 3, 1e-2, 0), Log.NONE);

        assertThat(parts.best())
                .isCloseTo(fullBatches.best(), within(1e-4))
                .isLessThan(fullBatches.curve().get(0).heldOut());
    }

    @Test
    void theSameSeedGivesTheSameResultAndDropoutAnother() {
        Structure structure = TestModels.structure("llama-gqa-d");
        double first =
                run(structure, options(Mode.LORA, 3, 8, 1e-2, 0.3), Log.NONE).best();

        assertThat(run(structure, options(Mode.LORA, 3, 8, 1e-2, 0.3), Log.NONE).best())
                .isCloseTo(first, within(1e-5));
        assertThat(run(structure, options(Mode.LORA, 3, 8, 1e-2, 0), Log.NONE).best())
                .isNotCloseTo(first, within(1e-3));
    }

    /** Only the prediction of the answer is learned, not the prompt; rows of different lengths can be mixed. */
    @Test
    void promptsAreNotLearned() {
        Structure structure = TestModels.structure("llama-gqa-d");
        List<Example> answers = new ArrayList<>();
        List<Example> other = new ArrayList<>();
        for (Example row : rows(ROWS, 1)) {
            int length = 8 + (int) (row.tokens()[0] % 8);
            long[] tokens = Arrays.copyOf(row.tokens(), length);
            answers.add(new Example(tokens, 5));
            other.add(new Example(tokens, 1));
        }
        TrainingOptions options = options(Mode.LORA, 12, 8, 2e-2, 0);

        Recovery.Result result = on(answers, answers, structure, options);

        assertThat(result.best()).isLessThan(result.curve().get(0).heldOut() - 0.3);
        Model trained = updated(structure, result.merged(folder));
        assertThat(loss(trained, answers)).isCloseTo(result.best(), within(1e-4));
        assertThat(result.curve().get(0).heldOut())
                .isCloseTo(loss(structure.analysis().program().model(), answers), within(1e-4));
        assertThat(loss(trained, other)).isNotCloseTo(result.best(), within(1e-2));
    }

    /** Targets can be layers and node names; other layers do not change. */
    @Test
    void onlyTargetsAreTrained() {
        Structure structure = TestModels.structure("llama-gqa-d");
        Recovery.Result layer = targeted(structure, "layers.1");
        Recovery.Result all = targeted(structure, "all");
        Recovery.Result both = targeted(structure, "attention,ffn");

        assertThat(layer.adapters()).isNotEmpty().hasSizeLessThan(all.adapters().size());
        assertThat(both.adapters()).hasSameSizeAs(all.adapters());
        String first = all.adapters().get(0).place().name();
        assertThat(targeted(structure, first).adapters())
                .singleElement()
                .satisfies(found -> assertThat(found.place().name()).isEqualTo(first));
        assertThatThrownBy(() -> targeted(structure, "layers.77"))
                .isInstanceOf(UsageException.class)
                .hasMessageContainingAll("layers.77", "3 layers", first);
    }

    private Recovery.Result targeted(Structure structure, String words) {
        TrainingOptions named = options("lr", "1e-2", "steps", "1", "targets", words);
        return run(structure, named, Log.NONE);
    }

    private Recovery.Result on(
            List<Example> rows, List<Example> heldOut, Structure structure, TrainingOptions options) {
        return Recovery.run(
                structure,
                new TrainingRows(rows, heldOut),
                new Recovery.Setup(Optional.empty(), options, true, folder, false),
                TestModels.runtime(),
                Log.NONE);
    }

    /** A training that was stopped after an evaluation resumes to the same result. */
    @Test
    void aStoppedTrainingResumes() {
        Structure structure = TestModels.structure("llama-gqa-d");
        TrainingOptions settings = options(
                "dropout",
                "0.1",
                "lr",
                "1e-2",
                "weight-decay",
                "0.01",
                "micro-batch",
                "4",
                "steps",
                "6",
                "eval-every",
                "2");
        Recovery.Result uninterrupted = run(structure, settings, Log.NONE);
        Path other = folder.resolve("other");
        RecordedLog stoppingLog = new RecordedLog() {
            @Override
            public void info(String message) {
                super.info(message);
                if (message.startsWith("step 4 of 6")) {
                    throw new IllegalStateException("stopped");
                }
            }
        };

        assertThatThrownBy(() -> in(other, structure, settings, false, stoppingLog))
                .hasMessage("stopped");
        RecordedLog log = new RecordedLog();
        Recovery.Result resumed = in(other, structure, settings, true, log);

        assertThat(log.lines()).anySatisfy(line -> assertThat(line).contains("resumes after step 2"));
        // Sums over several threads do not always have the same order.
        assertThat(resumed.best()).isCloseTo(uninterrupted.best(), within(1e-5));
        assertThat(resumed.curve()).hasSameSizeAs(uninterrupted.curve());
        Map<Value, Tensor> again = resumed.merged(folder);
        uninterrupted.merged(folder).forEach((value, tensor) -> {
            float[] found = again.get(value).toFloats();
            float[] expected = tensor.toFloats();
            for (int i = 0; i < expected.length; i++) {
                assertThat(found[i]).as(value.name()).isCloseTo(expected[i], within(1e-4f));
            }
        });
    }

    private static Recovery.Result in(
            Path folder, Structure structure, TrainingOptions options, boolean resume, Log log) {
        return Recovery.run(
                structure,
                new TrainingRows(rows(ROWS, 1), rows(6, 2)),
                new Recovery.Setup(Optional.empty(), options, true, folder, resume),
                TestModels.runtime(),
                log);
    }

    /** Distillation brings a model nearer to its teacher. */
    @ParameterizedTest
    @CsvSource({"1,1", "2,0.5"})
    void distillationApproachesTheTeacher(double temperature, double share) {
        Structure structure = TestModels.structure("llama-gqa-d");
        TrainingOptions plain = options(Mode.FULL, 12, 8, 1e-2, 0);
        Model named = updated(structure, run(structure, plain, Log.NONE).merged(folder));
        // Exporters may leave nodes without names.
        Model teacher = named.withGraph(named.graph()
                .withNodes(named.graph().nodes().stream()
                        .map(node -> node.withName(""))
                        .toList()));
        TrainingOptions distilling = options(
                "train",
                "full",
                "lr",
                "1e-2",
                "schedule",
                "constant",
                "warmup",
                "0",
                "clip",
                "0",
                "steps",
                "12",
                "eval-every",
                "6",
                "distill-weight",
                Double.toString(share),
                "temperature",
                Double.toString(temperature));

        Recovery.Result result = Recovery.run(
                structure,
                new TrainingRows(rows(ROWS, 1), rows(6, 2)),
                new Recovery.Setup(Optional.of(teacher), distilling, true, folder, false),
                TestModels.runtime(),
                Log.NONE);

        EvalPoint first = result.curve().get(1);
        EvalPoint last = result.curve().get(2);
        assertThat(last.loss()).isLessThan(first.loss());
        assertThat(result.best()).isLessThan(result.curve().get(0).heldOut() - 0.1);
    }

    @Test
    void aLossThatRisesStopsTrainingAndKeepsTheBest() {
        Structure structure = TestModels.structure("stories-llama");
        TrainingOptions wild = options(
                "alpha",
                "16",
                "lr",
                "0.9",
                "schedule",
                "constant",
                "warmup",
                "0",
                "clip",
                "0",
                "steps",
                "40",
                "eval-every",
                "1");
        RecordedLog log = new RecordedLog();

        List<Example> rows =
                TokenData.read(Path.of("testmodels", "tokens.jsonl"), Optional.empty(), OptionalInt.of(LENGTH))
                        .rows()
                        .stream()
                        .map(Example::whole)
                        .toList();
        Recovery.Result result = Recovery.run(
                structure,
                new TrainingRows(rows.subList(0, ROWS), rows.subList(ROWS, ROWS + 6)),
                new Recovery.Setup(Optional.empty(), wild, true, folder, false),
                TestModels.runtime(),
                log);

        assertThat(result.best()).isLessThanOrEqualTo(result.curve().get(0).heldOut());
        assertThat(result.curve().stream().map(EvalPoint::heldOut).toList())
                .as("curve")
                .hasSizeLessThan(40);
        assertThat(log.lines())
                .anySatisfy(line ->
                        assertThat(line).contains("training stopped at step", "lower the learning rate (--lr)"));
    }

    @Test
    void tooFewRowsForABatch() {
        Structure structure = TestModels.structure("llama-gqa-d");
        TrainingOptions epochs = options(
                "lr", "1e-3", "schedule", "linear", "clip", "0", "batch", "64", "epochs", "1", "eval-every", "1");

        assertThatThrownBy(() -> run(structure, epochs, Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("24 rows, fewer than one batch of 64");
        assertThatThrownBy(() -> options(Mode.LORA, 3, 8, 2, 0))
                .isInstanceOf(UsageException.class)
                .hasMessageContaining("--lr");
        assertThatThrownBy(() -> options(Mode.LORA, 3, 8, 1e-3, 1))
                .isInstanceOf(UsageException.class)
                .hasMessageContaining("--dropout");
    }

    private static Model updated(Structure structure, Map<Value, Tensor> updates) {
        return Slicer.slice(structure, Plan.keepAll("").keep(structure), updates);
    }

    /** The mean next-token cross-entropy, as in the evaluation of a file. */
    private double loss(Model model, List<Example> rows) {
        Path file = folder.resolve("updated.onnx");
        ModelWriter.write(model, file, false);
        try (CausalLm opened = CausalLm.open(TestModels.runtime(), file, Log.NONE)) {
            return Perplexity.ofExamples(opened, rows, Log.NONE).nll();
        }
    }
}
