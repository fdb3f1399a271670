// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
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
        Random random = new Random(3);
        String rows = IntStream.range(0, 24)
                .mapToObj(row ->
                        random.ints(32, 1, 100).mapToObj(Integer::toString).collect(Collectors.joining(",")))
                .collect(Collectors.joining("]}\n{\"input_ids\":[", "{\"input_ids\":[", "]}\n"));
        tokens = Files.writeString(folder.resolve("rows.jsonl"), rows);
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
