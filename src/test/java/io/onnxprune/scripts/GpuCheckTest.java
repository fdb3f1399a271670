// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.scripts;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.dims.Dimension;
import io.onnxprune.onnx.ModelReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** What scripts/gpu-check.sh does before it measures anything. */
@Tag("ort")
class GpuCheckTest {
    @TempDir
    Path folder;

    @Test
    void itsModelCanBePruned() throws IOException, InterruptedException {
        Command.java(Command.script("GpuCheck.java"), "model", folder, 2, 32, 48, 4, 2, 64)
                .succeeded();

        assertThat(TestModels.structure(ModelReader.read(folder.resolve("model.onnx"))).dimensions().stream()
                        .filter(Dimension::isPrunable)
                        .map(dimension -> dimension.name() + " " + dimension.size()))
                .contains("kv_heads.0 2", "query_heads.1 2", "ffn.1 48", "hidden 32");
    }

    @Test
    void valuesOfJsonAreFound() throws IOException, InterruptedException {
        Path json = Files.writeString(folder.resolve("run.json"), """
                {"evaluation_after": {"perplexity": 4.5}, "recovery": null,
                 "passes": [{"name": "score", "seconds": 1.25}, {"name": "emit", "seconds": 9}, {"name": "score", "seconds": 1}],
                 "curve": [{"tokens_per_second": 3}, {"tokens_per_second": 7.5}]}
                """);

        assertThat(Command.java(
                                Command.script("GpuCheck.java"),
                                "values",
                                json,
                                "/evaluation_after/perplexity",
                                "passes/score",
                                "curve",
                                "/recovery")
                        .succeeded())
                .isEqualTo("4.5 2.250 7.5 -\n");
    }

    @Test
    void plansAreCompared() throws IOException, InterruptedException {
        Path one = plan("one.json", "{\"name\": \"ffn.0\", \"size\": 4, \"keep\": [0, 1]}");
        Path other = plan(
                "other.json",
                "{\"name\": \"ffn.0\", \"size\": 4, \"keep\": [0, 2]}, {\"name\": \"ffn.1\", \"size\": 4, \"keep\": [0, 1, 2]}");

        // Of eight units, two of ffn.0 and one of ffn.1 have another fate.
        assertThat(Command.java(Command.script("GpuCheck.java"), "kept", one, other)
                        .succeeded())
                .isEqualTo("0.625000\n");
    }

    @Test
    void sectionsThatAreNotThere() throws IOException, InterruptedException {
        Command.Run run = Command.bash(Map.of(), Command.script("gpu-check.sh"), "--only", "stories,2b");

        assertThat(run.exitCode()).isEqualTo(2);
        assertThat(run.output()).contains("there is no section 2b");
    }

    private Path plan(String name, String dimensions) throws IOException {
        return Files.writeString(folder.resolve(name), "{\"dimensions\": [" + dimensions + "]}");
    }
}
