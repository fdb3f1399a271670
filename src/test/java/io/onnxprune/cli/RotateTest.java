// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import java.io.IOException;
import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The size of heads is pruned in a basis that orders it, on the command line. */
@Tag("ort")
class RotateTest extends PruningRuns {
    /** The verified file equals the dense model with the new basis, the new weights, and zeros. */
    @ParameterizedTest
    @ValueSource(strings = {"llama-gqa-d", "opt-c", "gpt2-g-merged", "gpt-neox-d", "mla", "shared-kv"})
    void ranksOfManyFormsOfModels(String name) throws IOException {
        Cli.Run run = run(
                        name, "--method", "auto", "--correct", "0", "--prune", "heads,v_head_dim,ffn", "--ratio", "0.1")
                .succeeded();

        assertThat(run.out()).contains("dimensions are in a basis that orders them", "verified on");
        assertThat(report().path("verification").path("logit_scale").asDouble()).isPositive();
    }

    private double perplexity(String when) throws IOException {
        return report().path("evaluation_" + when).path("perplexity").asDouble();
    }

    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "llama-gqa-d", "opt-c"})
    void streamAndHeadsShareOneBudget(String name) throws IOException {
        Cli.Run run = run(name, "--method", "auto-rotated", "--ratio", "0.15", "--steps", "2")
                .succeeded();

        assertThat(run.out()).contains("dimensions are in a basis that orders them", "verified on");
        assertThat(report().path("parameters_after").asDouble())
                .isLessThan(0.86 * report().path("parameters_before").asDouble());
    }

    @Test
    void theHiddenWidthIsCutInItsOwnBasis() throws IOException {
        Cli.Run run =
                run("stories-llama", "--method", "slicegpt", "--ratio", "0.15").succeeded();

        assertThat(run.out()).contains("hidden channels of 128", "verified on");
    }

    @Test
    void aBasisThatCannotChangeIsToldOnce() throws IOException {
        Cli.Run run = run(
                        "gated-attention",
                        "--method",
                        "auto",
                        "--correct",
                        "0",
                        "--prune",
                        "v_head_dim",
                        "--ratio",
                        "0.05")
                .succeeded();

        assertThat(run.err())
                .containsOnlyOnce(
                        "3 dimensions keep their basis, and their units are pruned as they are: v_head_dim.0, node"
                                + " \"node_Sigmoid_92\" (Sigmoid) treats its units one by one");
    }

    @Test
    void aPlanIsAppliedInTheSameBasis() throws IOException {
        Path plan = folder.resolve("plan.json");
        Path recipe = recipe(
                "{pass: rotate}",
                "{pass: score, metric: obs, curvature: loss}",
                "{pass: allocate, prune: [v_head_dim], scope: global, ratio: 0.05}",
                "{pass: compensate}",
                "{pass: rewrite}",
                "{pass: verify}");
        run("llama-gqa-d", "--recipe", recipe, "--plan-out", plan).succeeded();
        double own = perplexity("after");

        run("llama-gqa-d", "--recipe", recipe, "--plan", plan).succeeded();

        assertThat(perplexity("after")).isPositive().isCloseTo(own, within(1e-6 * own));
    }

    @Test
    void theBasisChangesBeforeUnitsAreChosen() throws IOException {
        Path recipe = recipe(
                "{pass: score, metric: magnitude}",
                "{pass: allocate, prune: [v_head_dim], ratio: 0.05}",
                "{pass: rotate}",
                "{pass: rewrite}",
                "{pass: verify}");

        assertThat(run("llama-gqa-d", "--recipe", recipe).err())
                .contains("pass rotate must come before the passes that choose what to prune");
    }
}
