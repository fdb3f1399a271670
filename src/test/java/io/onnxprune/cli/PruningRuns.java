// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.onnxprune.TokenRows;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.io.TempDir;

/** Runs of {@code onnx-prune} on random calibration rows, with a report in JSON. */
abstract class PruningRuns {
    @TempDir
    Path folder;

    Path tokens;
    Path out;
    Path json;

    @BeforeEach
    void data() throws IOException {
        tokens = TokenRows.random(folder, 100);
        out = folder.resolve("out.onnx");
        json = folder.resolve("out.json");
    }

    final Cli.Run run(String model, Object... options) {
        List<Object> all = new ArrayList<>(List.of(Cli.testModel(model), "-o", out));
        all.addAll(List.of(options));
        all.addAll(List.of("--calibration", tokens, "--work-dir", folder.resolve("work"), "--json", json));
        return Cli.run(all.toArray());
    }

    final JsonNode report() throws IOException {
        return new ObjectMapper().readTree(json.toFile());
    }

    final Path recipe(String... passes) throws IOException {
        return Cli.recipe(folder, passes);
    }
}
