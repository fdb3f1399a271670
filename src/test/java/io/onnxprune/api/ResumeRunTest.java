// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.TokenRows;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.runtime.RuntimeOptions;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** A run that is stopped goes on after the last pass that was done, and comes to the same model. */
@Tag("ort")
class ResumeRunTest {
    private static final String SURGEON = """
              - {pass: calibrate}
              - repeat:
                  steps: 3
                  passes:
                    - {pass: score, metric: obs, curvature: loss}
                    - {pass: allocate, prune: [heads, ffn], scope: global, ratio: 0.3}
                    - {pass: compensate}
              - {pass: refit}
              - {pass: rewrite}
              - {pass: emit}
            """;
    private static final String LAYERS = """
              - {pass: calibrate}
              - repeat:
                  steps: 3
                  passes:
                    - {pass: score, metric: taylor}
                    - {pass: allocate, prune: [ffn, hidden, layers], scope: global, ratio: 0.3}
              - {pass: rewrite}
              - {pass: emit}
            """;

    @TempDir
    private Path folder;

    private Path tokens;

    @BeforeEach
    void data() throws IOException {
        tokens = TokenRows.random(folder, 32);
    }

    private Path work() {
        return folder.resolve("work");
    }

    private PruneReport run(String model, String passes, int samples, String out, boolean resume, Log log)
            throws IOException {
        Path recipe = Files.writeString(folder.resolve("recipe.yaml"), "version: 2\nname: mine\npasses:\n" + passes);
        return Pruner.builder(TestModels.file(model))
                .output(folder.resolve(out).resolve("model.onnx"))
                .recipe(settings -> settings.recipe(recipe))
                .data(data -> data.calibration(tokens, 1).samples(samples).sequenceLength(32))
                .workFolder(work())
                .resume(resume)
                .runtime(RuntimeOptions.cpu(1))
                .build()
                .run(TestModels.runtime(), ProgressListener.of(log));
    }

    /** A log that stops a run when it begins a pass. */
    private static Log stopping(String atPass) {
        return new Log() {
            @Override
            public void info(String message) {}

            @Override
            public void warn(String message) {}

            @Override
            public void debug(String message) {
                if (message.startsWith("pass ") && message.endsWith(": " + atPass)) {
                    throw new IllegalStateException("stopped");
                }
            }

            @Override
            public Progress progress(String stage, long total) {
                return Log.NONE.progress(stage, total);
            }
        };
    }

    private void stop(String model, String passes, int samples, String atPass) {
        assertThatThrownBy(() -> run(model, passes, samples, "stopped", false, stopping(atPass)))
                .hasMessage("stopped");
    }

    /** The passes that a log tells of, without those that a resumed run repeats. */
    private static List<String> passes(RecordedLog log) {
        return log.details().stream()
                .filter(line -> line.startsWith("pass "))
                .map(line -> line.replaceAll("pass \\d+ of \\d+: ", ""))
                .filter(pass -> !pass.equals("calibrate"))
                .toList();
    }

    private List<Path> checkpoints() throws IOException {
        try (var files = Files.list(work())) {
            return files.filter(file -> file.getFileName().toString().matches("run-[0-9a-f]+\\.safetensors"))
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
    @CsvSource({"unstructured,2", "structured,3"})
    void zerosGoOnAfterTheLastStep(String pattern, int atStep) throws IOException {
        String passes = """
                  - {pass: calibrate}
                  - repeat:
                      steps: 3
                      passes:
                        - {pass: sparsify, by: surgeon, pattern: PATTERN, ratio: 0.4}
                  - {pass: rewrite}
                  - {pass: emit}
                  - {pass: verify, tolerance: 1e-3}
                """.replace("PATTERN", pattern);
        PruneReport whole = run("llama-gqa-d", passes, 16, "whole", false, Log.NONE);
        assertThat(checkpoints()).isEmpty();
        stop("llama-gqa-d", passes, 16, "sparsify of step " + atStep + " of 3");
        assertThat(checkpoints()).hasSize(1);

        RecordedLog log = new RecordedLog();
        PruneReport resumed = run("llama-gqa-d", passes, 16, "resumed", true, log);

        assertThat(log.lines())
                .contains("info: the run goes on: " + atStep + " of 7 passes are done, up to sparsify of step "
                        + (atStep - 1) + " of 3");
        assertSame("resumed", "whole");
        assertThat(resumed.entries()).isEqualTo(whole.entries());
    }

    /** A search leaves a choice, which is in the checkpoint with the scores. */
    @Test
    void goesOnAfterASearch() throws IOException {
        String passes = """
                  - {pass: calibrate}
                  - repeat:
                      steps: 2
                      passes:
                        - {pass: score, metric: obs, curvature: loss}
                        - {pass: allocate, prune: [heads, ffn], scope: global, ratio: 0.3}
                        - {pass: search, generations: 2, candidates: 2, set-aside: 0.25}
                        - {pass: compensate, update: least-squares}
                  - {pass: rewrite}
                  - {pass: emit}
                  - {pass: verify, tolerance: 1e-3}
                """;
        PruneReport whole = run("llama-gqa-d", passes, 16, "whole", false, Log.NONE);
        stop("llama-gqa-d", passes, 16, "compensate of step 2 of 2");

        PruneReport resumed = run("llama-gqa-d", passes, 16, "resumed", true, Log.NONE);

        assertSame("resumed", "whole");
        assertThat(resumed.entries()).isEqualTo(whole.entries());
        assertThat(whole.toJson().get("search")).isNotNull();
    }

    /** A search moves what an allocation shared out; a plan from elsewhere has no budget. */
    @Test
    void aSearchNeedsAnAllocation() {
        String passes = """
                  - {pass: calibrate}
                  - {pass: score, metric: obs, curvature: loss}
                  - {pass: search}
                  - {pass: rewrite}
                  - {pass: emit}
                """;
        assertThatThrownBy(() -> run("llama-gqa-d", passes, 16, "none", false, Log.NONE))
                .isInstanceOf(UsageException.class)
                .hasMessageContaining("pass search needs a plan that no other pass has acted on yet");
    }

    /** Models with branches that have constants of their own, and with half precision in a file beside them. */
    @ParameterizedTest
    @CsvSource({"llama-gqa-d,score,2", "gpt2-g-merged,compensate,2", "llama-g16-e-fp16,allocate,3"})
    void goesOnAtTheBoundaryOfEveryKindOfPass(String model, String pass, int step) throws IOException {
        PruneReport whole = run(model, SURGEON, 16, "whole", false, Log.NONE);
        assertThat(checkpoints()).isEmpty();
        String stopped = pass + " of step " + step + " of 3";
        stop(model, SURGEON, 16, stopped);
        assertThat(checkpoints()).hasSize(1);
        assertThat(folder.resolve("stopped")).doesNotExist();

        RecordedLog log = new RecordedLog();
        PruneReport resumed = run(model, SURGEON, 16, "resumed", true, log);

        assertThat(passes(log).get(0)).isEqualTo(stopped);
        assertSame("resumed", "whole");
        assertThat(resumed.toJson().get("compensated")).isEqualTo(whole.toJson().get("compensated"));
        assertThat((int) whole.toJson().get("compensated")).isPositive();
        assertThat(resumed.toJson().get("refitted")).isEqualTo(whole.toJson().get("refitted"));
        assertThat(checkpoints()).isEmpty();
        // The file in which equal runs find out about one another stays.
        assertThat(work().toFile().list()).containsOnly(".locks");
    }

    @Test
    void aBasisThatChangedIsInCheckpointsToo() throws IOException {
        String passes = SURGEON.replace("  - repeat:", "  - {pass: rotate}\n  - repeat:")
                .replace("[heads, ffn]", "[heads, v_head_dim, ffn]");
        PruneReport whole = run("llama-gqa-d", passes, 16, "whole", false, Log.NONE);
        stop("llama-gqa-d", passes, 16, "score of step 1 of 3");
        PruneReport resumed = run("llama-gqa-d", passes, 16, "resumed", true, Log.NONE);
        assertSame("resumed", "whole");
        assertThat(whole.toJson().get("rotated"))
                .isEqualTo(3)
                .isEqualTo(resumed.toJson().get("rotated"));
    }

    @Test
    void layersAndNormsAreInCheckpointsToo() throws IOException {
        run("stories-llama", LAYERS, 4, "whole", false, Log.NONE);
        stop("stories-llama", LAYERS, 4, "score of step 3 of 3");
        run("stories-llama", LAYERS, 4, "resumed", true, Log.NONE);
        assertSame("resumed", "whole");
    }

    /** A checkpoint is of one model, one recipe, one budget and the same rows; a run without --resume makes new ones. */
    @Test
    void otherRunsDoNotGoOn() throws IOException {
        stop("llama-gqa-d", SURGEON, 16, "score of step 3 of 3");
        String[] others = {SURGEON.replace("ratio: 0.3", "ratio: 0.24"), SURGEON.replace("loss}", "loss, damping: 0.1}")
        };
        for (String other : others) {
            RecordedLog log = new RecordedLog();
            run("llama-gqa-d", other, 16, "other", true, log);
            assertThat(log.lines()).anyMatch(line -> line.contains("the run starts from the beginning"));
        }
        RecordedLog fewer = new RecordedLog();
        run("llama-gqa-d", SURGEON, 15, "other", true, fewer);
        assertThat(fewer.lines()).anyMatch(line -> line.contains("the run starts from the beginning"));
        assertThat(checkpoints()).hasSize(1);

        RecordedLog again = new RecordedLog();
        run("llama-gqa-d", SURGEON, 16, "other", false, again);
        assertThat(again.lines()).contains("info: step 1 of 3").noneMatch(line -> line.contains("goes on"));
        assertThat(checkpoints()).isEmpty();
    }

    /** Cut off, or with another byte at some share of its length. */
    @ParameterizedTest
    @CsvSource({"true,0.5", "false,0.001", "false,0.999"})
    void damagedCheckpointsAreSaidToBe(boolean cut, double share) throws IOException {
        stop("llama-gqa-d", SURGEON, 16, "score of step 2 of 3");
        Path file = checkpoints().get(0);
        byte[] bytes = Files.readAllBytes(file);
        int place = (int) Math.max(9, share * bytes.length);
        bytes[place] ^= 1;
        Files.write(file, cut ? Arrays.copyOf(bytes, place) : bytes);

        assertThatThrownBy(() -> run("llama-gqa-d", SURGEON, 16, "resumed", true, Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessage("the checkpoint " + file + " is damaged; remove it, or leave out --resume");
    }
}
