// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static java.nio.charset.StandardCharsets.ISO_8859_1;
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

/** Data options of a run, from the command line to the report. */
@Tag("ort")
@Tag("slow")
class DataOptionsTest {
    private static final Path MODEL = Cli.testModel("llama-gqa-d");

    @TempDir
    private Path folder;

    private Cli.Run prune(Object... options) {
        List<Object> arguments = new ArrayList<>(List.of(
                MODEL, "-o", folder.resolve("small.onnx"), "--no-verify", "--json", folder.resolve("report.json")));
        arguments.addAll(Cli.withoutData(options));
        return Cli.run(arguments.toArray());
    }

    private JsonNode report() throws IOException {
        return new ObjectMapper().readTree(folder.resolve("report.json").toFile());
    }

    private static List<Integer> ofSources(JsonNode report, String field) {
        return StreamSupport.stream(report.at("/data/sources").spliterator(), false)
                .map(source -> source.path(field).asInt())
                .toList();
    }

    @Test
    void severalFilesWithWeights() throws IOException {
        Path tokens = Cli.tokens(folder);
        Path other = Files.copy(tokens, folder.resolve("b:2"));
        Path named = Files.move(other, folder.resolve("b:2.jsonl"));
        String out = prune("--calibration", tokens, "--calibration", named + ":3", "--seq-len", 4, "--samples", 8)
                .succeeded()
                .out();

        assertThat(ofSources(report(), "windows")).containsExactly(2, 6);
        assertThat(ofSources(report(), "held_out")).containsExactly(16, 30);
        assertThat(report().at("/data/calibrates").asBoolean()).isFalse();
        assertThat(out).contains("perplexity on 46 held-out windows from tokens.jsonl (16) and b:2.jsonl (30) (138");
        assertThat(report().at("/evaluation_after/tokens").asInt())
                .isEqualTo(report().at("/data/predictions").asInt())
                .isEqualTo(46 * 3);
    }

    @Test
    void onlyEvaluationData() throws IOException {
        String out = prune("--eval", Cli.tokens(folder)).succeeded().out();
        assertThat(out).contains("perplexity on 4 rows from tokens.jsonl (152 predictions)");
        assertThat(report().at("/data/windows").asInt()).isZero();
        assertThat(report().at("/evaluation_before/tokens").asInt()).isEqualTo(152);
    }

    @Test
    void textOfTheModelItself() throws IOException {
        Object[] options = {
            "--calibration", "self", "--samples", 4, "--seq-len", 16, "--work-dir", folder.resolve("work")
        };
        Cli.Run first = prune(options).succeeded();
        assertThat(first.err()).contains("the model writes 12 rows of 16 tokens to calibrate on, each from token 1");
        assertThat(first.out()).contains("perplexity on 8 held-out windows from the model itself (120 predictions)");
        JsonNode report = report();
        assertThat(report.at("/data/sources/0/name").asText()).isEqualTo("self");
        assertThat(report.at("/data/tokens").asInt()).isEqualTo(64);

        assertThat(prune(options).succeeded().err()).contains("in an earlier run is used again");
        assertThat(report().at("/evaluation_before/nll").asDouble())
                .isEqualTo(report.at("/evaluation_before/nll").asDouble());
    }

    @Test
    void aDryRunMeasuresNothing() throws IOException {
        Cli.Run run = prune("--eval", Cli.tokens(folder), "--dry-run").succeeded();
        assertThat(run.out()).doesNotContain("perplexity");
        assertThat(report().at("/data/held_out").asInt()).isEqualTo(4);
        assertThat(report().path("evaluation_before").isNull()).isTrue();
    }

    @Test
    void theDefaultMethodCalibratesOnTextOfTheModel() throws IOException {
        Path work = folder.resolve("work");
        Cli.Run run = Cli.run(
                        MODEL, "-o", folder.resolve("small.onnx"), "--work-dir", work, "--samples", 6, "--seq-len", 16)
                .succeeded();

        assertThat(run.err())
                .contains("the model writes 14 rows of 16 tokens to calibrate on")
                .contains("calibration runs 6 x 16 tokens through 1 segment, 6 rows at a time: about ");
        assertThat(run.out())
                .contains("calibration: 6 windows of 16 tokens from the model itself (96 tokens)")
                .contains("perplexity on 8 held-out windows")
                .contains("verified on 14 tokens");
    }

    @Test
    void rowsShorterThanTheMethodNeedsAreUnchanged() throws IOException {
        String out = Cli.run(MODEL, "--dry-run", "--calibration", Cli.tokens(folder), "--eval", Cli.tokens(folder))
                .succeeded()
                .out();

        assertThat(out).contains("calibration: 4 windows of 39 tokens from tokens.jsonl (156 tokens)");
    }

    @Test
    void nothingIsMeasuredWithoutARequest() throws IOException {
        prune().succeeded();
        assertThat(report().path("data").isNull()).isTrue();
        assertThat(report().path("evaluation_before").isNull()).isTrue();
    }

    @Test
    void invalidMemory() {
        prune("--method", "llm-pruner", "--memory", "0")
                .failed(2, "--memory takes 1 byte or more, like 900MB or 4GB, not \"0\"");
    }

    @Test
    void dataThatCannotBeUsed() throws IOException {
        Path tokens = Cli.tokens(folder);
        Path latin = Files.write(folder.resolve("latin.txt"), "café".repeat(300).getBytes(ISO_8859_1));
        prune("--calibration", latin).failed(1, "latin.txt is not UTF-8 text; convert it");
        prune("--calibration", tokens, "--seq-len", 100)
                .failed(1, "rows of ", "have 39 tokens, fewer than a window of 100; give --seq-len 39 or less");
        prune("--calibration", tokens, "--seq-len", 129)
                .failed(1, "windows of --seq-len 129 have 129 tokens, more than the model's context of 128");
        String row = "{\"input_ids\":[1" + ",2".repeat(199) + "]}\n";
        Path beyond = Files.writeString(folder.resolve("beyond.jsonl"), row.repeat(3));
        Cli.run("eval", Cli.testModel("gpt2-cb"), "--data", beyond)
                .failed(1, "the model runs on rows of up to 128 tokens, not of 200; give --seq-len 128 or less");
        prune("--eval", tokens, "--calibration", tokens + ":x").failed(1, "tokens.jsonl:x does not exist");
        assertThat(folder.resolve("small.onnx")).doesNotExist();
    }
}
