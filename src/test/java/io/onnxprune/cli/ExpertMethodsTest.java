// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Methods on mixtures of experts in all forms. */
@Tag("ort")
@Tag("slow")
class ExpertMethodsTest {
    private static final String SCORED =
            "dimensions are scored by gradients, and nothing compensates for what they lose";

    @TempDir
    private Path folder;

    private Cli.Run run(String model, Object... options) throws IOException {
        List<Object> all = new ArrayList<>(List.of(
                Cli.testModel(model),
                "-o",
                folder.resolve("out.onnx"),
                "--calibration",
                Cli.tokens(folder),
                "--json",
                folder.resolve("out.json")));
        all.addAll(Arrays.asList(options));
        return Cli.run(all.toArray());
    }

    /** The kept units of all dimensions of a role, as a share. */
    private double kept(String role) throws IOException {
        double kept = 0;
        double size = 0;
        for (JsonNode dimension :
                new ObjectMapper().readTree(folder.resolve("out.json").toFile()).path("dimensions")) {
            if (dimension.path("role").asText().equals(role)) {
                kept += dimension.path("kept").asInt();
                size += dimension.path("size").asInt();
            }
        }
        return kept / size;
    }

    @ParameterizedTest
    @ValueSource(strings = {"fused-experts", "int4-experts", "biased-experts", "mixtral-a", "unrolled-experts"})
    void theDefaultPrunesChannelsOfExperts(String model) throws IOException {
        Cli.Run run =
                run(model, "--prune", "ffn", "--steps", "1", "--correct", "1").succeeded();

        boolean ownMatrices = model.equals("unrolled-experts");
        assertThat(run.err().contains(SCORED)).isEqualTo(!ownMatrices);
        assertThat(run.out().contains("linear layers compensate for pruned units"))
                .isEqualTo(ownMatrices || model.equals("biased-experts"));
        assertThat(kept("ffn")).isLessThan(1);
    }

    @ParameterizedTest
    @ValueSource(
            strings = {"fused-experts", "int4-experts", "biased-experts", "mixtral-a", "unrolled-experts", "qwen3-moe-d"
            })
    void expertsArePrunedByTheirOutputs(String model) throws IOException {
        run(model, "--method", "reap", "--ratio", "0.15").succeeded();
        assertThat(kept("experts")).isLessThan(1);
        assertThat(kept("kv_heads")).isIn(1.0, Double.NaN);
    }

    /** Experts by the divergence without each, in one ranking with heads. */
    @ParameterizedTest
    @ValueSource(strings = {"biased-experts", "unrolled-experts"})
    void expertsRankBesideHeads(String model) throws IOException {
        Path recipe = Cli.recipe(
                folder,
                "{pass: calibrate}",
                "{pass: score, metric: obs, curvature: loss, others: divergence}",
                "{pass: allocate, prune: [experts, heads], ratio: 0.3, scope: global}",
                "{pass: compensate}",
                "{pass: rewrite}",
                "{pass: verify}");

        Cli.Run run = run(model, "--recipe", recipe).succeeded();

        assertThat(run.err()).contains("are scored by divergences (experts) or gradients");
        assertThat(kept("experts")).isLessThan(1);
    }

    @Test
    void aMethodThatCannotPruneExpertsNamesThoseThatCan() throws IOException {
        run("mixtral-a", "--method", "slimgpt", "--ratio", "0.3")
                .failed(1, "ffn.0 is not pruned by slimgpt (node ", "methods that can prune this: auto, llm-pruner, ");
        run("mixtral-a", "--method", "flap", "--prune", "ffn")
                .failed(1, "flap can prune no ffn", "methods that can prune this: auto, llm-pruner, ", "magnitude");
        run("mixtral-a", "--method", "reap", "--prune", "experts,heads")
                .failed(
                        1,
                        "metric reap scores experts by their outputs",
                        "methods that can prune this: ",
                        "llm-pruner");
    }

    @Test
    void noMethodIsNamedWhereNoneCan() throws IOException {
        Cli.Run run = run("fused-experts", "--method", "magnitude", "--ratio", "0.95");
        run.failed(1, "cannot be reached by pruning heads, ffn");
        assertThat(run.err()).doesNotContain("methods that can");
    }
}
