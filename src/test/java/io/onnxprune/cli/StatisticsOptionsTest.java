// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TokenRows;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Statistics that one run keeps and another one uses. */
@Tag("ort")
@Tag("slow")
class StatisticsOptionsTest {
    private static final Path MODEL = Cli.testModel("llama-gqa-d");
    private static final String SCORE = "{pass: score, metric: obs, curvature: loss}";

    @TempDir
    private Path folder;

    private Path tokens;
    private Path kept;

    @BeforeEach
    void data() throws IOException {
        tokens = TokenRows.random(folder, 100);
        kept = folder.resolve("kept.safetensors");
    }

    private Path recipe(String score, String... more) throws IOException {
        List<String> passes = new ArrayList<>(List.of(score, "{pass: allocate, scope: global}"));
        passes.addAll(List.of(more));
        return Cli.recipe(folder, passes.toArray(String[]::new));
    }

    private Cli.Run run(String out, Object... options) {
        List<Object> all = new ArrayList<>(List.of(MODEL, "-o", folder.resolve(out)));
        all.addAll(List.of(options));
        all.addAll(List.of("--work-dir", folder.resolve("work")));
        return Cli.run(all.toArray());
    }

    private Cli.Run keeping(String out, Object... options) {
        List<Object> all = new ArrayList<>(List.of(options));
        all.addAll(List.of("--calibration", tokens, "--stats-out", kept));
        return run(out, all.toArray());
    }

    /** The second run needs no data and writes the same model. */
    @Test
    void statisticsStandForTheData() throws IOException {
        Path recipe = recipe(SCORE);
        assertThat(keeping("first.onnx", "--recipe", recipe).succeeded().err())
                .contains("statistics of 21 x 32 tokens are in " + kept);
        Cli.Run second = run("second.onnx", "--recipe", recipe, "--stats", kept).succeeded();

        assertThat(second.err())
                .contains("statistics of 21 x 32 tokens come from " + kept)
                .doesNotContain("calibration runs");
        assertThat(second.out()).doesNotContain("perplexity");
        assertThat(Files.readAllBytes(folder.resolve("second.onnx")))
                .isEqualTo(Files.readAllBytes(folder.resolve("first.onnx")));
        // Other budgets and fewer prunable structures need no other statistics.
        run("third.onnx", "--recipe", recipe, "--stats", kept, "--ratio", "0.1", "--prune", "ffn")
                .succeeded();
    }

    /** Scores and compensation use the same statistics, so one run of the model or one file is enough. */
    @Test
    void newWeightsFromTheSameStatistics() throws IOException {
        Path recipe = recipe(SCORE, "{pass: compensate, update: kronecker}");
        assertThat(keeping("first.onnx", "--recipe", recipe).succeeded().err()).containsOnlyOnce("calibration runs");
        run("second.onnx", "--recipe", recipe, "--stats", kept).succeeded();
        assertThat(Files.readAllBytes(folder.resolve("second.onnx")))
                .isEqualTo(Files.readAllBytes(folder.resolve("first.onnx")));
    }

    /** With several steps, only the first measures the dense model. */
    @Test
    void zerosFromStatistics() throws IOException {
        Path one = sparse(1);
        keeping("first.onnx", "--recipe", one).succeeded();
        run("second.onnx", "--recipe", one, "--stats", kept).succeeded();
        assertThat(Files.readAllBytes(folder.resolve("second.onnx")))
                .isEqualTo(Files.readAllBytes(folder.resolve("first.onnx")));

        Path two = sparse(2);
        keeping("first.onnx", "--recipe", two).succeeded();
        run("second.onnx", "--recipe", two, "--stats", kept, "--calibration", tokens)
                .succeeded();
        assertThat(Files.readAllBytes(folder.resolve("second.onnx")))
                .isEqualTo(Files.readAllBytes(folder.resolve("first.onnx")));
    }

    private Path sparse(int steps) throws IOException {
        return Cli.recipe(
                folder,
                "{repeat: {steps: " + steps + ", passes: [{pass: sparsify, by: surgeon, pattern: unstructured}]}}");
    }

    /** Data are needed only for statistics that the first step does not measure. */
    @Test
    void laterStepsAndNewWeightsAreMeasured() throws IOException {
        Path recipe = recipe(SCORE, "{pass: compensate}");
        keeping("first.onnx", "--recipe", recipe, "--steps", 2).succeeded();
        Cli.Run second = run("second.onnx", "--recipe", recipe, "--steps", 2, "--stats", kept, "--calibration", tokens)
                .succeeded();

        assertThat(second.err()).containsOnlyOnce("come from " + kept).contains("calibration runs");
        assertThat(Files.readAllBytes(folder.resolve("second.onnx")))
                .isEqualTo(Files.readAllBytes(folder.resolve("first.onnx")));
        run("third.onnx", "--recipe", recipe, "--stats", kept, "--calibration", tokens, "--seq-len", 16)
                .failed(1, "are of rows of 32 tokens, but this run calibrates on rows of 16; add --seq-len 32");
    }

    @Test
    void statisticsThatDoNotFit() throws IOException {
        Path recipe = recipe("{pass: score, metric: obs, curvature: output}");
        keeping("first.onnx", "--recipe", recipe, "--prune", "ffn").succeeded();
        run("second.onnx", "--recipe", recipe, "--stats", kept)
                .failed(1, "the statistics " + kept + " have no \"inputs/", "measure them again");
        run("second.onnx", "--recipe", recipe(SCORE), "--stats", kept, "--prune", "ffn")
                .failed(1, "have gradients of kind \"none\", but the method needs \"empirical\"");
        Cli.run(Cli.testModel("opt-c"), "-o", folder.resolve("second.onnx"), "--recipe", recipe, "--stats", kept)
                .failed(1, "the statistics " + kept + " are of another model (SHA-256 ");
        run("second.onnx", "--recipe", recipe, "--stats", tokens)
                .failed(1, "the statistics " + tokens + " are damaged");
        run("second.onnx", "--recipe", recipe, "--stats", folder.resolve("nothing"))
                .failed(1, "cannot read " + folder.resolve("nothing") + ": no such file");
        assertThat(folder.resolve("second.onnx")).doesNotExist();
    }

    @Test
    void damagedStatistics() throws IOException {
        Path recipe = recipe(SCORE);
        keeping("first.onnx", "--recipe", recipe).succeeded();
        byte[] whole = Files.readAllBytes(kept);
        for (int place : new int[] {40, whole.length - 1}) {
            byte[] changed = whole.clone();
            changed[place] ^= 1;
            Files.write(kept, changed);
            run("second.onnx", "--recipe", recipe, "--stats", kept)
                    .failed(1, "the statistics " + kept + " are damaged (", "); measure them again");
            Files.write(kept, Arrays.copyOf(whole, place));
            run("second.onnx", "--recipe", recipe, "--stats", kept).failed(1, "are damaged (");
        }
    }

    @Test
    void nothingElseIsOverwritten() throws IOException {
        Path recipe = recipe(SCORE);
        Path model = Files.copy(MODEL, folder.resolve("other.onnx"));
        run("out.onnx", "--recipe", recipe, "--calibration", tokens, "--stats-out", model)
                .failed(1, "would overwrite a file that holds no statistics");
        run("out.onnx", "--recipe", recipe, "--calibration", tokens, "--stats-out", folder.resolve("no/kept"))
                .failed(1, "--stats-out ", " cannot be written: there is no folder ");
        assertThat(Files.readAllBytes(model)).isEqualTo(Files.readAllBytes(MODEL));

        keeping("out.onnx", "--recipe", recipe, "--samples", 16).succeeded();
        byte[] before = Files.readAllBytes(kept);
        keeping("out.onnx", "--recipe", recipe).succeeded();
        assertThat(Files.readAllBytes(kept)).hasSameSizeAs(before).isNotEqualTo(before);
        run("out.onnx", "--recipe", recipe, "--stats", kept, "--json", kept)
                .failed(2, "--json " + kept + " would overwrite an input");
        assertThat(folder.toFile().list())
                .containsExactlyInAnyOrder(
                        "kept.safetensors", "other.onnx", "out.onnx", "recipe.yaml", "rows.jsonl", "work");
    }

    @Test
    void optionsWithoutEffect() throws IOException {
        Path recipe = recipe(SCORE);
        run("out.onnx", "--method", "magnitude", "--stats", kept)
                .failed(2, "--stats is for methods that begin with second moments", "which magnitude does not");
        keeping("out.onnx", "--recipe", recipe("{pass: score, metric: taylor}"))
                .failed(2, "--stats-out is for methods", "which mine does not");
        keeping("out.onnx", "--method", "slimgpt").failed(2, "--stats-out is for methods");
        keeping("out.onnx", "--recipe", recipe, "--stats", kept).failed(2, "give one of them");
        keeping("out.onnx", "--recipe", recipe(SCORE), "--ratio", 0).failed(2, "--ratio 0 removes nothing");
        Path plan = Files.writeString(folder.resolve("plan.json"), "{}");
        keeping("out.onnx", "--recipe", recipe, "--plan", plan).failed(2, "--plan already determines the kept units");
    }
}
