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
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Plan;
import io.onnxprune.recover.TrainingOptions.Mode;
import io.onnxprune.recover.TrainingOptions.Schedule;
import io.onnxprune.rewrite.Slicer;
import io.onnxprune.runtime.DecoderInterface;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

class RecoveryTest {
    private static final int LENGTH = 16;
    private static final int ROWS = 24;

    @TempDir
    private Path folder;

    /** Rows that count upwards from a random token: easy to learn. */
    private static List<long[]> rows(int count, long seed) {
        Random random = new Random(seed);
        List<long[]> rows = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            long first = 1L + random.nextInt(40);
            long[] row = new long[LENGTH];
            for (int t = 0; t < LENGTH; t++) {
                row[t] = first + t;
            }
            rows.add(row);
        }
        return rows;
    }

    private static TrainingOptions options(Mode mode, int steps, int microBatch, double learningRate, double dropout) {
        return new TrainingOptions(
                mode,
                4,
                8,
                dropout,
                true,
                true,
                learningRate,
                Schedule.COSINE,
                OptionalInt.of(1),
                0,
                1,
                8,
                microBatch,
                1,
                OptionalInt.of(steps),
                steps,
                0,
                1,
                1,
                7);
    }

    private Recovery.Result run(Structure structure, TrainingOptions options, Log log) {
        return Recovery.run(
                structure, rows(ROWS, 1), rows(6, 2), Optional.empty(), options, folder, TestModels.runtime(), log);
    }

    @ParameterizedTest
    @ValueSource(strings = {"llama-gqa-d", "opt-c", "glm-d", "gpt2-cb", "llama-g16-e-fp16", "phi3-d"})
    void trainingLowersTheLossOfEveryKindOfModel(String name) {
        Structure structure = TestModels.structure(name);

        Recovery.Result result = run(structure, options(Mode.LORA, 12, 8, 2e-2, 0), Log.NONE);

        assertThat(result.curve()).hasSize(2);
        assertThat(result.best()).isLessThan(result.curve().get(0).heldOut() - 0.3);
        assertThat(loss(updated(structure, result.updates()), rows(6, 2))).isCloseTo(result.best(), within(2e-3));
    }

    @ParameterizedTest
    @EnumSource(
            value = Mode.class,
            names = {"FULL", "NORMS", "BIAS"})
    void weightsThemselvesCanBeTrained(Mode mode) {
        Structure structure = TestModels.structure("opt-c");

        Recovery.Result result = run(structure, options(mode, 12, 8, 2e-2, 0), Log.NONE);

        assertThat(result.best()).isLessThan(result.curve().get(0).heldOut() - 0.02);
        assertThat(loss(updated(structure, result.updates()), rows(6, 2))).isCloseTo(result.best(), within(1e-4));
        boolean matrices = result.updates().keySet().stream()
                .anyMatch(value -> value.constant().rank() == 2);
        assertThat(matrices).isEqualTo(mode == Mode.FULL);
    }

    /** Gradients of parts of a batch add up to those of the batch. */
    @Test
    void aBatchInPartsIsTheSameBatch() {
        Structure structure = TestModels.structure("llama-gqa-d");

        Recovery.Result whole = run(structure, options(Mode.LORA, 3, 8, 1e-2, 0), Log.NONE);
        Recovery.Result parts = run(structure, options(Mode.LORA, 3, 3, 1e-2, 0), Log.NONE);

        assertThat(parts.best())
                .isCloseTo(whole.best(), within(1e-4))
                .isLessThan(whole.curve().get(0).heldOut());
    }

    @Test
    void theSameSeedGivesTheSameResultAndDropoutAnother() {
        Structure structure = TestModels.structure("llama-gqa-d");
        double first =
                run(structure, options(Mode.LORA, 3, 8, 1e-2, 0.3), Log.NONE).best();

        assertThat(run(structure, options(Mode.LORA, 3, 8, 1e-2, 0.3), Log.NONE).best())
                .isEqualTo(first);
        assertThat(run(structure, options(Mode.LORA, 3, 8, 1e-2, 0), Log.NONE).best())
                .isNotEqualTo(first);
    }

    /** A model that learns from another of the same form comes nearer to it. */
    @ParameterizedTest
    @CsvSource({"1,1", "2,0.5"})
    void aTeacherIsLearnedFrom(double temperature, double share) {
        Structure structure = TestModels.structure("llama-gqa-d");
        TrainingOptions plain = options(Mode.FULL, 12, 8, 1e-2, 0);
        Model teacher = updated(structure, run(structure, plain, Log.NONE).updates());
        TrainingOptions taught = new TrainingOptions(
                Mode.FULL,
                4,
                8,
                0,
                true,
                true,
                1e-2,
                Schedule.CONSTANT,
                OptionalInt.of(0),
                0,
                0,
                8,
                8,
                1,
                OptionalInt.of(12),
                6,
                0,
                share,
                temperature,
                7);

        Recovery.Result result = Recovery.run(
                structure,
                rows(ROWS, 1),
                rows(6, 2),
                Optional.of(teacher),
                taught,
                folder,
                TestModels.runtime(),
                Log.NONE);

        Look first = result.curve().get(1);
        Look last = result.curve().get(2);
        assertThat(last.loss()).isLessThan(first.loss());
        assertThat(result.best()).isLessThan(result.curve().get(0).heldOut() - 0.1);
    }

    @Test
    void aLossThatRisesStopsTrainingAndKeepsTheBest() {
        Structure structure = TestModels.structure("llama-gqa-d");
        TrainingOptions wild = new TrainingOptions(
                Mode.FULL,
                4,
                8,
                0,
                true,
                true,
                0.9,
                Schedule.CONSTANT,
                OptionalInt.of(0),
                0,
                0,
                8,
                8,
                1,
                OptionalInt.of(40),
                1,
                0,
                1,
                1,
                7);
        RecordedLog log = new RecordedLog();

        Recovery.Result result = run(structure, wild, log);

        assertThat(result.best()).isLessThanOrEqualTo(result.curve().get(0).heldOut());
        assertThat(result.curve()).hasSizeLessThan(40);
        assertThat(log.lines()).anySatisfy(line -> assertThat(line).contains("training stopped at step", "lower --lr"));
    }

    @Test
    void tooFewRowsForABatch() {
        Structure structure = TestModels.structure("llama-gqa-d");
        TrainingOptions epochs = new TrainingOptions(
                Mode.LORA,
                4,
                8,
                0,
                true,
                true,
                1e-3,
                Schedule.LINEAR,
                OptionalInt.empty(),
                0,
                0,
                64,
                8,
                1,
                OptionalInt.empty(),
                1,
                0,
                1,
                1,
                7);

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

    /** Mean next-token cross-entropy, computed here from the logits. */
    private static double loss(Model model, List<long[]> rows) {
        DecoderInterface decoder = DecoderInterface.of(model.graph());
        Map<String, HostTensor> feeds = new HashMap<>(decoder.feeds(rows.toArray(long[][]::new), 0));
        decoder.caches()
                .forEach(cache -> feeds.put(cache.input().name(), DecoderInterface.cache(cache, rows.size(), 0, 0)));
        String name = decoder.logits().name();
        try (Session session = TestModels.runtime().open(model, false);
                Outputs outputs = session.run(feeds, List.of(name))) {
            float[] logits = outputs.tensor(name).toFloats();
            int vocabulary = logits.length / rows.size() / LENGTH;
            double sum = 0;
            for (int row = 0; row < rows.size(); row++) {
                for (int t = 0; t + 1 < LENGTH; t++) {
                    int start = (row * LENGTH + t) * vocabulary;
                    double total = 0;
                    for (int v = 0; v < vocabulary; v++) {
                        total += Math.exp(logits[start + v]);
                    }
                    sum += Math.log(total) - logits[start + (int) rows.get(row)[t + 1]];
                }
            }
            return sum / rows.size() / (LENGTH - 1);
        }
    }
}
