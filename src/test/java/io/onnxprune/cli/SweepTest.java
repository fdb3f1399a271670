// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.onnxprune.diag.UsageException;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import javax.xml.parsers.DocumentBuilderFactory;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.w3c.dom.Document;

/** Runs of a sweep give what they give by themselves, in less work. */
@Tag("ort")
class SweepTest {
    private static final Path MODEL = Cli.testModel("stories-llama");
    private static final Path ROWS = Path.of("testmodels", "tokens.jsonl");

    @TempDir
    private Path folder;

    private List<Object> data() {
        return List.of(
                "--calibration",
                ROWS,
                "--seq-len",
                16,
                "--samples",
                24,
                "--threads",
                1,
                "--no-verify",
                "--work-dir",
                folder.resolve("work"));
    }

    private Cli.Run sweep(Object... options) {
        List<Object> all = new ArrayList<>(List.of("sweep", MODEL));
        all.addAll(List.of(options));
        all.addAll(data());
        return Cli.run(all.toArray());
    }

    private JsonNode json(String name) throws IOException {
        return new ObjectMapper().readTree(folder.resolve(name).toFile());
    }

    /**
     * Methods that go in steps share those: what comes before the first, and three passes a step. Others share scores, but only where no
     * later pass measures the dense model as well.
     */
    @ParameterizedTest
    @CsvSource({
        "llm-surgeon-fast, '0.1,0.2,0.25', '0 4 0'",
        "auto, '0.05,0.1', '0 4'",
        "llm-pruner-global, '0.1,0.2', '0 2'",
        "slimgpt, '0.1,0.2', '0 2'",
        "flap, '0.1,0.2', '0 0'"
    })
    void asRunsByThemselves(String method, String ratios, String shared) throws IOException {
        Path out = folder.resolve("out");
        Path json = folder.resolve("sweep.json");
        sweep("--ratios", ratios, "--methods", method, "-o", out, "--keep", "all", "--json", json)
                .succeeded();

        List<String> taken = new ArrayList<>();
        JsonNode dense = json("sweep.json").path("dense");
        for (JsonNode point : json("sweep.json").path("points")) {
            taken.add(point.path("shared_passes").asText());
            String ratio = point.path("ratio_requested").asText();
            Path alone = folder.resolve("alone-" + ratio);
            List<Object> run = new ArrayList<>(List.of(MODEL, "-o", alone, "--method", method, "--ratio", ratio));
            run.addAll(data());
            run.addAll(List.of("--json", folder.resolve("alone.json")));
            Cli.run(run.toArray()).succeeded();

            assertThat(out.resolve(method + '-' + ratio).resolve("model.onnx"))
                    .hasSameBinaryContentAs(alone.resolve("model.onnx"));
            JsonNode report = json("alone.json");
            assertThat(point.at("/model/parameters")).isEqualTo(report.path("parameters_after"));
            assertThat(point.at("/model/bytes")).isEqualTo(report.path("bytes_after"));
            assertThat(point.at("/model/nll")).isEqualTo(report.at("/evaluation_after/nll"));
            assertThat(point.path("ratio_achieved").asDouble())
                    .isCloseTo(report.path("ratio_achieved").asDouble(), within(1e-12));
            assertThat(dense.path("nll")).isEqualTo(report.at("/evaluation_before/nll"));
        }
        assertThat(String.join(" ", taken)).isEqualTo(shared);
        assertThat(folder.resolve("work")).isDirectoryNotContaining("glob:**sweep-states*");
    }

    @Test
    void aPointThatFailsIsALine() throws Exception {
        Path json = folder.resolve("sweep.json");
        Path picture = folder.resolve("sweep.svg");
        Path out = folder.resolve("out");
        Cli.Run run = sweep(
                "--ratios",
                "0.99,0.1,0.2",
                "--methods",
                "magnitude,random",
                "-o",
                out,
                "--json",
                json,
                "--svg",
                picture);

        assertThat(run.code()).isEqualTo(1);
        assertThat(run.err()).contains("magnitude at ratio 0.99 failed: ", "cannot be reached by pruning heads, ffn");
        JsonNode report = json("sweep.json");
        assertThat(report.path("failures").asInt()).isEqualTo(2);
        assertThat(report.path("points")).hasSize(6);
        List<String> kept = new ArrayList<>();
        for (JsonNode point : report.path("points")) {
            boolean failed = !point.path("failure").isNull();
            assertThat(failed).isEqualTo(point.path("ratio_requested").asDouble() == 0.99);
            assertThat(point.path("model").isNull()).isEqualTo(failed);
            assertThat(point.path("file").isNull())
                    .isEqualTo(!point.path("pareto").asBoolean());
            if (point.path("pareto").asBoolean()) {
                kept.add(point.path("method").asText()
                        + '-'
                        + point.path("ratio_requested").asText());
                assertThat(Path.of(point.path("file").asText())).exists();
            }
        }
        assertThat(out.toFile().list())
                .containsExactlyInAnyOrderElementsOf(kept)
                .isNotEmpty();
        assertThat(run.out()).contains("dense", "failed", "0.99").doesNotContain("NaN");

        Document svg = DocumentBuilderFactory.newInstance()
                .newDocumentBuilder()
                .parse(new ByteArrayInputStream(Files.readAllBytes(picture)));
        // Two panels, each with a dot for every result, one for the method in the legend, and the rings.
        assertThat(svg.getElementsByTagName("circle").getLength()).isEqualTo(2 * 4 + 2 + 2 * kept.size());
        assertThat(Files.readString(picture)).doesNotContain("href").doesNotContain("NaN");
    }

    /** Recipes of other numbers of rows are measured on the same held-out rows. */
    @Test
    void methodsAreMeasuredOnTheSameRows() throws IOException {
        Path json = folder.resolve("sweep.json");
        Cli.Run run = Cli.run(
                "sweep",
                MODEL,
                "--ratios",
                "0.1",
                "--methods",
                "magnitude,llm-pruner,slimgpt",
                "--calibration",
                ROWS,
                "--threads",
                1,
                "--no-verify",
                "--work-dir",
                folder.resolve("work"),
                "--json",
                json);
        run.succeeded();
        assertThat(run.err()).doesNotContain("different rows");
        assertThat(json("sweep.json").path("points")).hasSize(3);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
            0.1            | 0.1
            0.1:0.3:0.1    | 0.1 0.2 0.3
            0.1:0.35:0.1   | 0.1 0.2 0.3
            0.3,0.05:0.1:0.05 | 0.3 0.05 0.1
            0.2:0.2:0.1    | 0.2
            """)
    void ratios(String text, String expected) {
        assertThat(String.join(
                        " ", Ratios.parse(text).stream().map(String::valueOf).toList()))
                .isEqualTo(expected);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
            x             | --ratios takes shares like 0.2 and ranges like 0.1:0.5:0.1 (from:to:step), separated by commas, not "x"
            0.1:0.2       | separated by commas, not "0.1:0.2"
            0.1,,0.2      | separated by commas, not ""
            0.1:0.5:0     | has a step of 0; a step is more than 0
            0.1:0.5:-0.1  | has a step of -0.1
            0.5:0.1:0.1   | ends below its beginning
            0:1:1e-9      | are more than 1000 shares
            NaN           | not "NaN"
            """)
    void badRatios(String text, String reason) {
        assertThatThrownBy(() -> Ratios.parse(text))
                .isInstanceOf(UsageException.class)
                .hasMessageStartingWith("--ratios ")
                .hasMessageContaining(reason);
    }

    @Test
    void badCommandLines() throws IOException {
        Path out = Files.createDirectory(folder.resolve("full"));
        Files.writeString(out.resolve("mine"), "x");
        Cli.run("sweep", MODEL).failed(2, "missing required option: '--ratios=LIST'");
        sweep("--ratios", "0").failed(2, "--ratios takes shares of more than 0 and less than 1, not 0.0");
        sweep("--ratios", "1.5").failed(2, "less than 1, not 1.5");
        sweep("--ratios", "0.1", "--methods", "magnitud").failed(2, "did you mean \"magnitude\"?");
        sweep("--ratios", "0.1", "--keep", "all").failed(2, "add -o DIR, or --keep none");
        sweep("--ratios", "0.1", "--keep", "none", "-o", folder.resolve("new"))
                .failed(2, "--keep none writes no models");
        sweep("--ratios", "0.1", "-o", out).failed(1, "has files in it; name a new or an empty folder");
        sweep("--ratios", "0.1", "-o", folder.resolve("a.onnx")).failed(2, "is to be a folder for several models");
        sweep("--ratios", "0.1", "--resume").failed(2, "--resume continues one run");
        sweep("--ratios", "0.1", "--svg", out.resolve("mine")).failed(1, "would overwrite a file that is no SVG");
        assertThat(out.resolve("mine")).hasContent("x");
    }
}
