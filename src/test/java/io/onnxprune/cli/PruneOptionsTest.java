// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The effect of each option of a pruning run. */
@Tag("ort")
class PruneOptionsTest {
    private static final Path MODEL = Cli.testModel("llama-gqa-d");

    @TempDir
    private Path folder;

    /** Makes a plan with these options and returns the JSON. */
    private JsonNode plan(Object... options) throws IOException {
        Path json = folder.resolve("plan.json");
        List<Object> arguments = new ArrayList<>(List.of(MODEL, "--dry-run", "--quiet", "--json", json));
        arguments.addAll(Cli.withoutData(options));
        Cli.Run run = Cli.run(arguments.toArray()).succeeded();
        assertThat(run.out()).isEmpty();
        return new ObjectMapper().readTree(json.toFile());
    }

    private static List<Integer> kept(JsonNode report, String role) {
        return StreamSupport.stream(report.path("dimensions").spliterator(), false)
                .filter(dimension -> dimension.path("role").asText().equals(role))
                .map(dimension -> dimension.path("kept").asInt())
                .toList();
    }

    private static long left(JsonNode report, String what) {
        return report.path(what + "_after").asLong();
    }

    @Test
    void targets() throws IOException {
        JsonNode whole = plan("--ratio", 0);
        assertThat(left(whole, "parameters"))
                .isEqualTo(whole.path("parameters_before").asLong());
        assertThat(plan("--ratio", "0.3", "--prune", "ffn")
                        .path("ratio_achieved")
                        .asDouble())
                .isCloseTo(0.3, within(0.003));
        assertThat((double) left(plan("--params", "0.08M", "--prune", "ffn"), "parameters"))
                .isCloseTo(80_000, within(200));
        assertThat((double) left(plan("--size", "320kB", "--prune", "ffn"), "bytes"))
                .isCloseTo(320_000, within(800));
    }

    private static org.assertj.core.data.Offset<Double> within(double distance) {
        return org.assertj.core.data.Offset.offset(distance);
    }

    @Test
    void structures() throws IOException {
        assertThat(kept(plan("--prune", "heads", "--ratio", "0.05"), "ffn")).containsOnly(96);
        assertThat(kept(plan("--prune", "query_heads", "--ratio", "0.05"), "query_heads"))
                .contains(1);
        assertThat(kept(plan("--prune", "hidden"), "hidden").get(0)).isLessThan(64);
        assertThat(left(plan("--prune", "layers", "--ratio", "0.4"), "layers")).isEqualTo(1);
        assertThat(left(plan("--prune", "blocks"), "blocks")).isEqualTo(4);
    }

    @Test
    void shapesOfThePlan() throws IOException {
        assertThat(kept(plan("--layout", "uniform", "--scope", "global"), "ffn"))
                .hasSize(3)
                .containsOnly(50);
        assertThat(kept(plan("--round-to", 16), "ffn")).allMatch(channels -> channels % 16 == 0);
        assertThat(kept(plan("--protect", "ffn.0", "--prune", "ffn"), "ffn").get(0))
                .isEqualTo(96);
        assertThat(kept(plan("--protect", "layers.1", "--prune", "ffn"), "ffn").get(1))
                .isEqualTo(96);
        assertThat(kept(plan("--skip-first", 1, "--prune", "ffn"), "ffn").get(0))
                .isEqualTo(96);
        assertThat(kept(plan("--skip-last", 1, "--prune", "ffn"), "ffn").get(2)).isEqualTo(96);
        assertThat(kept(plan("--prune", "blocks", "--protect", "layers.0", "--ratio", "0.3"), "ffn")
                        .get(0))
                .isEqualTo(96);
        assertThat(left(plan("--prune", "layers", "--protect", "ffn.1", "--ratio", "0.4"), "layers"))
                .isEqualTo(1);
        assertThat(kept(plan("--prune", "layers", "--protect", "ffn.1", "--ratio", "0.4"), "ffn"))
                .containsExactly(0, 96, 0);
    }

    @Test
    void dimensionsThatARecipeProtectsShrinkInAUniformLayout() throws IOException {
        Path recipe = Files.writeString(folder.resolve("mine.yaml"), """
                version: 2
                name: mine
                passes:
                  - {pass: score, metric: random}
                  - {pass: allocate, prune: [ffn], ratio: 0.1, skip-first: 40%}
                  - {pass: rewrite}
                """);

        assertThat(kept(plan("--recipe", recipe), "ffn").get(0)).isEqualTo(96);
        assertThat(kept(plan("--recipe", recipe, "--skip-first", "0"), "ffn").get(0))
                .isLessThan(96);
        assertThat(kept(plan("--recipe", recipe, "--layout", "uniform"), "ffn").get(0))
                .isLessThan(96);
    }

    @Test
    void ratiosRiseByASchedule() throws IOException {
        List<Integer> rising =
                kept(plan("--schedule", "linear", "--first-ratio", "0.1", "--prune", "ffn", "--ratio", "0.1"), "ffn");
        assertThat(rising.get(0)).isBetween(85, 87);
        assertThat(rising.get(0) - rising.get(1)).isBetween(rising.get(1) - rising.get(2) - 2, 96);
        assertThat(rising.get(2)).isLessThan(rising.get(1));

        Path recipe = Files.writeString(folder.resolve("mine.yaml"), """
                version: 2
                name: mine
                passes:
                  - {pass: score, metric: random}
                  - {pass: allocate, prune: [ffn], ratio: 0.1, schedule: log}
                  - {pass: rewrite}
                """);
        assertThat(kept(plan("--recipe", recipe), "ffn").get(0))
                .isGreaterThan(kept(plan("--recipe", recipe), "ffn").get(2));
        assertThat(kept(plan("--recipe", recipe, "--layout", "uniform"), "ffn").stream()
                        .distinct())
                .hasSize(1);
    }

    @Test
    void gradientsAreMeasuredAgainInEachStep() throws IOException {
        Path tokens = Cli.tokens(folder);
        Path one = folder.resolve("one");
        Path two = folder.resolve("two");
        List<Object> arguments = List.of(
                "--method",
                "llm-pruner",
                "--ratio",
                "0.3",
                "--calibration",
                tokens,
                "--samples",
                2,
                "--seq-len",
                20,
                "--work-dir",
                folder);
        List<Object> first = new ArrayList<>(arguments);
        first.addAll(List.of("--plan-out", one));
        List<Object> second = new ArrayList<>(arguments);
        second.addAll(List.of("--plan-out", two, "--steps", 2));
        List<String> passes = new ArrayList<>();
        plan(second.toArray())
                .path("passes")
                .forEach(pass -> passes.add(pass.path("name").asText()));

        assertThat(passes.stream().filter("score"::equals)).hasSize(2);
        assertThat(left(plan(first.toArray()), "parameters")).isPositive();
        assertThat(Files.readString(two)).isNotEqualTo(Files.readString(one));
    }

    @Test
    void seedsDecideWhatRandomPrunes() throws IOException {
        Path first = folder.resolve("1");
        Path again = folder.resolve("1b");
        Path second = folder.resolve("2");
        plan("--method", "random", "--seed", 1, "--plan-out", first);
        plan("--method", "random", "--seed", 1, "--plan-out", again);
        plan("--method", "random", "--seed", 2, "--plan-out", second);

        assertThat(again).hasSameTextualContentAs(first);
        assertThat(Files.readString(second)).isNotEqualTo(Files.readString(first));
    }

    @Test
    void filesThatAreWritten() throws IOException {
        Path plan = folder.resolve("plan.json");
        Path out = folder.resolve("small");
        Path dump = folder.resolve("ir");
        Cli.Run run = Cli.run(
                        MODEL.getParent(),
                        "-o",
                        out,
                        "--method",
                        "magnitude",
                        "--plan-out",
                        plan,
                        "--external-data",
                        "--dump-ir",
                        dump,
                        "--verbose")
                .succeeded();

        assertThat(run.out()).contains("asked to prune 20.00 %", "verified on ", "wrote " + out.resolve("model.onnx"));
        assertThat(run.err()).contains("infer-dimensions: ");
        assertThat(Cli.contents(out))
                .containsKeys("config.json", "generation_config.json", "model.onnx", "model.onnx.data");
        assertThat(Cli.contents(dump)).containsKey("00-import.txt");

        Path again = folder.resolve("again.onnx");
        Cli.run(MODEL, "-o", again, "--method", "magnitude", "--plan", plan, "--no-verify")
                .succeeded();
        assertThat(Cli.run("eval", again, "--against", out, "--data", Cli.tokens(folder), "--prompt", 0)
                        .succeeded()
                        .out()
                        .lines()
                        .skip(2)
                        .map(line -> line.replaceAll("^\\S+\\s+(\\S+).*", "$1"))
                        .distinct())
                .hasSize(1);
    }
}
