// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.compiler.PruneJob.StatisticsFiles;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.OutputTarget;
import io.onnxprune.eval.DataRequest;
import io.onnxprune.eval.DataRequest.WeightedFile;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.recipe.PassKind;
import io.onnxprune.recipe.PlanPasses;
import io.onnxprune.recipe.Recipe;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** A run in steps that is stopped goes on after the last one that was done, and comes to the same model. */
@Tag("ort")
@Tag("slow")
class StepNotesTest {
    private static final String SURGEON = """
            {pass: score, metric: obs, curvature: loss}
            {pass: allocate, prune: [heads, ffn], scope: global, steps: 3, ratio: 0.3}
            {pass: compensate}
            {pass: refit}
            {pass: rewrite}""";
    private static final String LAYERS = """
            {pass: score, metric: taylor}
            {pass: allocate, prune: [ffn, hidden, layers], scope: global, steps: 3, ratio: 0.3}
            {pass: rewrite}""";

    @TempDir
    private Path folder;

    private Path tokens;

    @BeforeEach
    void data() throws IOException {
        Random random = new Random(3);
        String rows = IntStream.range(0, 24)
                .mapToObj(row ->
                        random.ints(32, 1, 32).mapToObj(Integer::toString).collect(Collectors.joining(",")))
                .collect(Collectors.joining("]}\n{\"input_ids\":[", "{\"input_ids\":[", "]}\n"));
        tokens = Files.writeString(folder.resolve("rows.jsonl"), rows);
    }

    private Path work() {
        return folder.resolve("work");
    }

    private PruneReport run(String model, String passes, int samples, String out, boolean resume, Log log)
            throws IOException {
        Recipe recipe = Recipe.read(Files.writeString(
                folder.resolve("recipe.yaml"),
                "version: 1\nname: mine\npasses:\n"
                        + passes.lines().map(line -> "  - " + line + "\n").collect(Collectors.joining())));
        ModelFolder input = ModelFolder.of(TestModels.file(model));
        Budget budget = recipe.pass(PassKind.ALLOCATE) == null
                ? Budget.ofRatio(PruneSet.standard(), 0)
                : PlanPasses.budget(recipe.pass(PassKind.ALLOCATE));
        DataRequest request = new DataRequest(
                List.of(new WeightedFile(tokens, 1)),
                false,
                Optional.empty(),
                Optional.empty(),
                OptionalInt.of(samples),
                OptionalInt.of(32),
                32,
                OptionalLong.empty(),
                true,
                0);
        PruneJob job = new PruneJob(
                input,
                Optional.of(OutputTarget.of(input, folder.resolve(out).resolve("model.onnx"))),
                recipe,
                budget,
                Optional.empty(),
                Optional.empty(),
                false,
                request,
                new CalibrationOptions(CalibrationOptions.DEFAULT_MEMORY, work(), resume),
                StatisticsFiles.NONE,
                Optional.empty(),
                0,
                1);
        return Pruner.run(job, TestModels.runtime(), log);
    }

    /** A log that stops a run when it begins a step. */
    private static Log stopping(String atStep) {
        return new Log() {
            @Override
            public void info(String message) {
                if (message.startsWith("removing up to " + atStep) || message.startsWith("making up to " + atStep)) {
                    throw new IllegalStateException("stopped");
                }
            }

            @Override
            public void warn(String message) {}

            @Override
            public void debug(String message) {}

            @Override
            public Progress progress(String stage, long total) {
                return Log.NONE.progress(stage, total);
            }
        };
    }

    private void stop(String model, String passes, int samples, String atStep) {
        assertThatThrownBy(() -> run(model, passes, samples, "stopped", false, stopping(atStep)))
                .hasMessage("stopped");
    }

    private List<Path> notes() throws IOException {
        try (var files = Files.list(work())) {
            return files.filter(file -> file.toString().endsWith(".safetensors"))
                    .toList();
        }
    }

    private void assertSame(String one, String other) throws IOException {
        String[] names = folder.resolve(other).toFile().list();
        assertThat(folder.resolve(one).toFile().list()).containsExactlyInAnyOrder(names);
        for (String name : names) {
            assertThat(Files.mismatch(
                            folder.resolve(one).resolve(name),
                            folder.resolve(other).resolve(name)))
                    .as(name)
                    .isEqualTo(-1);
        }
    }

    @ParameterizedTest
    @CsvSource({"unstructured,26.7", "structured,40.0"})
    void zerosGoOnAfterTheLastStep(String pattern, String atStep) throws IOException {
        String passes = "{pass: sparsify, by: surgeon, pattern: " + pattern
                + ", ratio: 0.4, steps: 3}\n{pass: verify, tolerance: 1e-3}";
        PruneReport whole = run("llama-gqa-d", passes, 16, "whole", false, Log.NONE);
        assertThat(notes()).isEmpty();
        stop("llama-gqa-d", passes, 16, atStep);
        assertThat(notes()).hasSize(1);

        RecordedLog log = new RecordedLog();
        PruneReport resumed = run("llama-gqa-d", passes, 16, "resumed", true, log);

        assertThat(log.lines())
                .contains("info: pruning goes on: " + (atStep.equals("26.7") ? 1 : 2) + " of 3 steps are done");
        assertSame("resumed", "whole");
        assertThat(resumed.zeros()).isEqualTo(whole.zeros());
    }

    /** Models with branches that have constants of their own, and with half precision in a file beside them. */
    @ParameterizedTest
    @CsvSource({"llama-gqa-d,20", "gpt2-g-merged,30", "llama-g16-e-fp16,20"})
    void goesOnAfterTheLastStep(String model, String atStep) throws IOException {
        PruneReport whole = run(model, SURGEON, 16, "whole", false, Log.NONE);
        assertThat(notes()).isEmpty();
        stop(model, SURGEON, 16, atStep);
        assertThat(notes()).hasSize(1);
        assertThat(folder.resolve("stopped")).doesNotExist();

        RecordedLog log = new RecordedLog();
        PruneReport resumed = run(model, SURGEON, 16, "resumed", true, log);

        assertThat(log.lines())
                .contains("info: pruning goes on: " + (atStep.equals("20") ? 1 : 2) + " of 3 steps are done")
                .noneMatch(line -> line.startsWith("info: removing up to 10"));
        assertSame("resumed", "whole");
        assertThat(resumed.compensated()).isPositive().isEqualTo(whole.compensated());
        assertThat(resumed.refitted()).isPositive().isEqualTo(whole.refitted());
        assertThat(notes()).isEmpty();
    }

    @Test
    void layersAndNormsAreNotedToo() throws IOException {
        run("stories-llama", LAYERS, 4, "whole", false, Log.NONE);
        stop("stories-llama", LAYERS, 4, "30");
        run("stories-llama", LAYERS, 4, "resumed", true, Log.NONE);
        assertSame("resumed", "whole");
    }

    /** Notes are of one model, one recipe, one budget and the same rows; a run without --resume makes new ones. */
    @Test
    void otherRunsDoNotGoOn() throws IOException {
        stop("llama-gqa-d", SURGEON, 16, "30");
        String[] others = {SURGEON.replace("ratio: 0.3", "ratio: 0.24"), SURGEON.replace("loss}", "loss, damping: 0.1}")
        };
        for (String other : others) {
            RecordedLog log = new RecordedLog();
            run("llama-gqa-d", other, 16, "other", true, log);
            assertThat(log.lines()).anyMatch(line -> line.contains("pruning begins anew"));
        }
        RecordedLog fewer = new RecordedLog();
        run("llama-gqa-d", SURGEON, 15, "other", true, fewer);
        assertThat(fewer.lines()).anyMatch(line -> line.contains("pruning begins anew"));
        assertThat(notes()).hasSize(1);

        RecordedLog again = new RecordedLog();
        run("llama-gqa-d", SURGEON, 16, "other", false, again);
        assertThat(again.lines()).contains("info: removing up to 10.0 %").noneMatch(line -> line.contains("goes on"));
        assertThat(notes()).isEmpty();
    }

    /** Cut off, or with another byte at some share of its length. */
    @ParameterizedTest
    @CsvSource({"true,0.5", "false,0.001", "false,0.999"})
    void damagedNotesAreSaidToBe(boolean cut, double share) throws IOException {
        stop("llama-gqa-d", SURGEON, 16, "20");
        Path file = notes().get(0);
        byte[] bytes = Files.readAllBytes(file);
        int place = (int) Math.max(9, share * bytes.length);
        bytes[place] ^= 1;
        Files.write(file, cut ? Arrays.copyOf(bytes, place) : bytes);

        assertThatThrownBy(() -> run("llama-gqa-d", SURGEON, 16, "resumed", true, Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessage("the notes " + file + " are damaged; remove them, or leave out --resume");
    }
}
