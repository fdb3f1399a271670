// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Collections;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Methods that change the kept weights, on the command line. */
@Tag("ort")
@Tag("slow")
class SequentialMethodsTest extends PruningRuns {
    /** Every run compares the written model with the masked dense model, with the new weights in both. */
    @ParameterizedTest
    @ValueSource(
            strings = {
                "llama-gqa-d",
                "glm-d",
                "opt-c",
                "gpt2-g-merged",
                "gpt-neox-d",
                "bloom-d",
                "qwen3-moe-d",
                "llama-g16-e-fp16",
                "llama-mha-e-mha16"
            })
    void slimgptOnManyFormsOfModels(String name) throws IOException {
        Cli.Run run =
                run(name, "--method", "slimgpt", "--refit", "--ratio", "0.1").succeeded();

        assertThat(run.out()).contains("verified on", "linear layers compensate for pruned units");
        assertThat(report().path("compensated").asInt()).isPositive();
        assertThat(report().path("ratio_achieved").asDouble()).isBetween(0.08, 0.12);
        assertThat(report().path("verification").path("logit_scale").asDouble()).isPositive();
    }

    /** Added biases count against the target. */
    @ParameterizedTest
    @ValueSource(strings = {"llama-gqa-d", "gpt2-g-merged", "qwen3-moe-d", "llama-g16-e-fp16"})
    void flapOnManyFormsOfModels(String name) throws IOException {
        Cli.Run run = run(name, "--method", "flap", "--ratio", "0.1").succeeded();

        assertThat(run.out()).contains("verified on", "linear layers compensate for pruned units");
        assertThat(report().path("compensated").asInt()).isPositive();
        double whole = report().path("parameters_before").asDouble();
        assertThat(report().path("parameters_after").asDouble()).isCloseTo(0.9 * whole, within(250.0));
    }

    @Test
    void biasesOfARefitAndOfAGivenPlan() throws IOException {
        Path plan = folder.resolve("plan.json");
        Path flap = recipe(
                "{pass: add-biases}",
                "{pass: score, metric: magnitude}",
                "{pass: allocate, prune: [heads, ffn], ratio: 0.2}",
                "{pass: compensate, update: bias}",
                "{pass: refit, bias: true}",
                "{pass: rewrite}",
                "{pass: verify}");
        run("llama-gqa-d", "--recipe", flap, "--plan-out", plan).succeeded();
        assertThat(report().path("compensated").asInt()).isEqualTo(6);
        assertThat(report().path("refitted").asInt()).isEqualTo(6);
        double own = perplexity();
        long parameters = report().path("parameters_after").asLong();

        run("llama-gqa-d", "--recipe", flap, "--plan", plan).succeeded();
        assertThat(perplexity()).isCloseTo(own, within(1e-5 * own));
        assertThat(report().path("parameters_after").asLong()).isEqualTo(parameters);

        Path nothing = folder.resolve("plain.onnx");
        Cli.run(Cli.testModel("llama-gqa-d"), "-o", nothing, "--method", "magnitude", "--ratio", "0")
                .succeeded();
        run("llama-gqa-d", "--method", "flap", "--ratio", "0").succeeded();
        assertThat(out).hasSameBinaryContentAs(nothing);
    }

    @Test
    void onlyDimensionsWithPlainLinearLayersArePruned() throws IOException {
        Cli.Run run = run("mixtral-a", "--method", "slimgpt-uniform", "--ratio", "0.05")
                .succeeded();

        assertThat(run.err()).contains("warning: 2 of 4 dimensions are not pruned by slimgpt-uniform: ffn.0, node ");
        assertThat(changed("ffn")).isZero();
        assertThat(changed("kv_heads")).isPositive();
    }

    /** The number of dimensions of a role with pruned units. */
    private int changed(String role) throws IOException {
        int count = 0;
        for (JsonNode dimension : report().path("dimensions")) {
            boolean smaller =
                    dimension.path("kept").asInt() < dimension.path("size").asInt();
            count += smaller && dimension.path("role").asText().equals(role) ? 1 : 0;
        }
        return count;
    }

    @Test
    void aRatioOfZeroLeavesTheModelUnchanged() throws IOException {
        run("llama-gqa-d", "--method", "slimgpt", "--refit", "--ratio", "0").succeeded();

        Path plain = folder.resolve("plain.onnx");
        Cli.run(Cli.testModel("llama-gqa-d"), "-o", plain, "--method", "magnitude", "--ratio", "0")
                .succeeded();
        assertThat(out).hasSameBinaryContentAs(plain);
        assertThat(report().path("compensated").asInt()
                        + report().path("refitted").asInt())
                .isZero();
    }

    @Test
    void aGivenPlanIsCompensatedLikeAComputedOne() throws IOException {
        Path plan = folder.resolve("plan.json");
        run("llama-gqa-d", "--method", "slimgpt", "--ratio", "0.2", "--plan-out", plan)
                .succeeded();
        double own = perplexity();
        int compensated = report().path("compensated").asInt();
        run("llama-gqa-d", "--method", "slimgpt", "--plan", plan).succeeded();
        assertThat(report().path("compensated").asInt()).isEqualTo(compensated).isPositive();
        assertThat(perplexity()).isCloseTo(own, within(1e-5 * own));

        Cli.Run without =
                run("llama-gqa-d", "--method", "magnitude", "--plan", plan).succeeded();
        assertThat(without.out()).doesNotContain("compensate for");
        assertThat(perplexity()).isNotCloseTo(own, within(1e-5 * own));
    }

    @Test
    void aDryRunChoosesTheUnitsThatARunWouldPrune() throws IOException {
        Path plan = folder.resolve("plan.json");
        Path again = folder.resolve("again.json");
        run("llama-gqa-d", "--method", "slimgpt", "--plan-out", plan).succeeded();
        Cli.run(
                        Cli.testModel("llama-gqa-d"),
                        "--dry-run",
                        "--method",
                        "slimgpt",
                        "--calibration",
                        tokens,
                        "--plan-out",
                        again)
                .succeeded();
        assertThat(again).hasSameTextualContentAs(plan);
    }

    @Test
    void anyMethodCanBeRefitted() throws IOException {
        Cli.Run run = run("llama-gqa-d", "--method", "magnitude", "--refit", "--ratio", "0.3")
                .succeeded();
        assertThat(run.out()).contains("the weights of 6 linear layers bring the residual stream near");
        assertThat(report().path("refitted").asInt()).isEqualTo(6);
        assertThat(report().path("compensated").asInt()).isZero();
        double with = perplexity();

        run("llama-gqa-d", "--method", "magnitude", "--no-refit", "--ratio", "0.3")
                .succeeded();
        assertThat(report().path("refitted").asInt()).isZero();
        assertThat(with).isNotEqualTo(perplexity());
    }

    @Test
    void anyMethodCanBeCorrected() throws IOException {
        Cli.Run run = run("llama-gqa-d", "--method", "magnitude", "--correct", "2", "--ratio", "0.3")
                .succeeded();
        assertThat(run.out()).contains("6 linear layers were corrected by gradients: divergence from the dense model ");
        assertThat(run.err()).contains("correction 1 of 2: divergence ").doesNotContain("correction 3");
        JsonNode correction = report().path("correction");
        assertThat(correction.path("linear_layers").asInt()).isEqualTo(6);
        assertThat(correction.path("objective").asText()).isEqualTo("kl-divergence");
        assertThat(correction.path("loss_after").asDouble())
                .isLessThan(correction.path("loss_before").asDouble());
        assertThat(report().path("verification").path("logit_scale").asDouble()).isPositive();
        double with = perplexity();

        run("llama-gqa-d", "--method", "magnitude", "--ratio", "0.3").succeeded();
        assertThat(report().path("correction").isNull()).isTrue();
        assertThat(with).isNotEqualTo(perplexity());
    }

    @Test
    void aRecipeCorrectsUnlessTheCommandLineSaysOtherwise() throws IOException {
        Path recipe = recipe(
                "{pass: score, metric: magnitude}",
                "{pass: allocate, ratio: 0.2}",
                "{pass: correct, steps: 1, layers: all}",
                "{pass: rewrite}",
                "{pass: verify}");
        run("llama-gqa-d", "--recipe", recipe).succeeded();
        assertThat(report().path("correction").path("linear_layers").asInt()).isEqualTo(21);

        Path plan = folder.resolve("plan.json");
        run("llama-gqa-d", "--recipe", recipe, "--correct", "0", "--plan-out", plan)
                .succeeded();
        assertThat(report().path("correction").isNull()).isTrue();
        run("llama-gqa-d", "--recipe", recipe, "--plan", plan).succeeded();
        assertThat(report().path("correction").path("linear_layers").asInt()).isEqualTo(21);

        run("llama-gqa-d", "--recipe", recipe, "--correct", "-1").failed(2, "--correct", "0 or more, not -1");
        run("llama-gqa-d", "--recipe", recipe, "--correct", "some").failed(2, "--correct", "some");
    }

    private double perplexity() throws IOException {
        return report().path("evaluation_after").path("perplexity").asDouble();
    }

    @Test
    void oneRankingInStepsWithRefitsAndADenseTarget() throws IOException {
        Path recipe = recipe(
                "{repeat: {steps: 3, passes: [{pass: score, metric: obs, curvature: loss}, {pass: allocate, prune: [heads, ffn,"
                        + " query_heads], scope: global, ratio: 0.3}, {pass: compensate, target: dense}, {pass: refit}]}}",
                "{pass: rewrite}",
                "{pass: verify}");
        run("llama-gqa-d", "--recipe", recipe).succeeded();
        assertThat(report().path("ratio_achieved").asDouble()).isBetween(0.28, 0.32);
        assertThat(report().path("refitted").asInt()).isEqualTo(6);
    }

    /**
     * Training works with any method, after the last step or after each one. Its weights are verified like all others.
     */
    @ParameterizedTest
    @CsvSource({"llama-gqa-d,full,false", "opt-c,lora,true", "gpt2-cb,full,true"})
    void thePrunedModelIsTrained(String model, String train, boolean everyStep) throws IOException {
        String recover = "{pass: recover, train: " + train + ", epochs: 2, batch: 8}";
        String block =
                "{repeat: {steps: 2, passes: [{pass: score, metric: magnitude}, {pass: allocate, prune: [heads, ffn],"
                        + " ratio: 0.2}" + (everyStep ? ", " + recover : "") + "]}}";
        Path recipe =
                recipe(block, everyStep ? "{pass: correct, steps: 1}" : recover, "{pass: rewrite}", "{pass: verify}");

        Cli.Run run = run(model, "--recipe", recipe, "--samples", "16", "--seq-len", "16")
                .succeeded();

        assertThat(run.out()).contains("verified on");
        assertThat(run.err().split("training: 4 steps of 8 rows", -1)).hasSize(everyStep ? 3 : 2);
    }

    /** Users need not know the largest learning rate of a model. One that is too high is detected and lowered. */
    @Test
    void aLearningRateThatIsTooHighIsLowered() throws IOException {
        Path recipe = recipe(
                "{pass: score, metric: magnitude}",
                "{pass: allocate, prune: [heads, ffn], ratio: 0.2}",
                "{pass: recover, lr: 0.05, epochs: 4, batch: 4, eval-every: 2}",
                "{pass: rewrite}",
                "{pass: verify}");

        Cli.Run run = run("stories-llama", "--recipe", recipe, "--samples", "16", "--seq-len", "16")
                .succeeded();

        assertThat(run.err()).contains("loss rose from", "restarts with a learning rate of 1.25e-02");
        List<Double> losses = report().path("recovery").findValues("held_out_loss").stream()
                .map(JsonNode::asDouble)
                .toList();
        assertThat(Collections.min(losses)).isLessThan(losses.get(0));
    }

    @Test
    void unitsOfQuantisedConsumersCannotBeScored() {
        run("llama-g16-e-int4", "--method", "slimgpt")
                .failed(
                        1,
                        "slimgpt can prune no heads and no ffn in this model: kv_heads.0, node ",
                        "plain floating-point matrix");
    }

    @Test
    void aModelWithoutTheRequestedStructure() {
        run("llama-gqa-d", "--method", "slimgpt", "--prune", "experts")
                .failed(1, "there are no experts to prune in this model; it has heads");
        run("llama-gqa-d", "--method", "slimgpt", "--prune", "layers").failed(1, "slimgpt compares heads and channels");
        run("llama-gqa-d", "--method", "slimgpt", "--prune", "hidden")
                .failed(1, "slimgpt can prune no hidden", "it runs through all layers");
    }

    @Test
    void aRatioThatWouldLeaveALayerWithoutHeads() {
        run("llama-gqa-d", "--method", "slimgpt", "--prune", "heads", "--ratio", "0.5")
                .failed(1, "cannot be reached by pruning heads");
    }

    @Test
    void tooFewTokens() throws IOException {
        Path recipe = recipe(
                "{pass: score, metric: position}",
                "{pass: allocate, prune: [heads, ffn], ratio: 0.3}",
                "{pass: prune-layerwise, damping: 0}",
                "{pass: rewrite}",
                "{pass: verify}");
        Cli.Run run = run("stories-llama", "--recipe", recipe, "--samples", "1", "--seq-len", "16");
        assertThat(run.err())
                .contains(
                        "16 tokens of calibration data do not determine how the 344 inputs of node ",
                        "calibrate on at least 344 tokens",
                        "damping raised from 0.0");
    }

    @Test
    void incompatibleOptions() throws IOException {
        run("llama-gqa-d", "--method", "slimgpt", "--scope", "global").failed(2, "choose scope local");
        run("llama-gqa-d", "--method", "magnitude", "--resume").failed(2, "--resume is for methods that calibrate");
        Path layerwise = recipe(
                "{pass: score, metric: position}", "{pass: allocate}", "{pass: prune-layerwise, update: kronecker}");
        run("llama-gqa-d", "--recipe", layerwise)
                .failed(2, "recipe.yaml:7:5: update kronecker is measured once and not block by block");
        Path dense = recipe("{pass: score}", "{pass: allocate}", "{pass: compensate, update: bias, target: dense}");
        run("llama-gqa-d", "--recipe", dense)
                .failed(2, "pass compensate has no key \"target\"; only update least-squares takes it");
        Path producers = recipe("{pass: score, metric: obs, members: all}", "{pass: allocate}");
        run("llama-gqa-d", "--recipe", producers).failed(2, "members all needs curvature loss");
    }

    /** Every order of passes that old recipes accepted by mistake is rejected, with the place and the missing input. */
    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '"', textBlock = """
        {pass: allocate}, {pass: score}                                                         | 5:5: pass allocate needs scores of the model as it is; put a pass score before it
        {pass: score}, {pass: compensate}, {pass: allocate}                                     | 6:5: pass compensate needs a plan that no other pass has acted on yet
        {pass: score}, {pass: allocate}, {pass: refit}, {pass: compensate}                      | 8:5: pass compensate needs a plan that no other pass has acted on yet, which pass refit at RECIPE:7:5 made out of date
        {pass: refit}, {pass: score}, {pass: allocate}                                          | 5:5: pass refit needs a plan; put a pass allocate before it
        {pass: score}, {pass: allocate}, {pass: compensate}, {pass: allocate}                   | 8:5: pass allocate needs scores of the model as it is, which pass compensate at RECIPE:7:5 made out of date
        {pass: score}, {pass: allocate}, {pass: rewrite}, {pass: refit}                         | 9:5: pass refit changes the model after it was emitted, so the file would not have the change
        {pass: score}, {pass: allocate}, {pass: compensate, update: bias}                       | 7:5: pass compensate needs biases in the linear layers; put a pass add-biases before it
        {pass: verify}                                                                          | 5:5: pass verify needs the emitted file; put a pass emit before it
        {pass: calibrate}, {pass: calibrate}                                                    | 5:5: pass calibrate is there twice, but all passes share one set of rows
        """)
    void ordersThatCannotWork(String passes, String sentence) throws IOException {
        Path recipe = recipe(passes.split(", (?=\\{)"));
        run("llama-gqa-d", "--recipe", recipe)
                .failed(2, "recipe.yaml:" + sentence.replace("RECIPE", recipe.toString()));
        assertThat(out).doesNotExist();
    }

    /** A pass that is listed twice runs twice. The recipe decides on the order of correction and refit. */
    @Test
    void passesRunAsOftenAsTheyAreListed() throws IOException {
        Path recipe = recipe(
                "{pass: sparsify, by: wanda, pattern: \"2:4\"}",
                "{pass: score, metric: magnitude}",
                "{pass: allocate, prune: [ffn], ratio: 0.05}",
                "{pass: score, metric: obs}",
                "{pass: allocate, prune: [heads, ffn], ratio: 0.2}",
                "{pass: compensate}",
                "{pass: correct, steps: 1}",
                "{pass: refit}",
                "{pass: rewrite}",
                "{pass: verify, tolerance: 1e-2}",
                "{pass: verify, tolerance: 1e-3}");
        Cli.Run run = run("llama-gqa-d", "--recipe", recipe, "--verbose").succeeded();
        assertThat(run.err())
                .containsSubsequence(
                        "pass 2 of 13: sparsify",
                        "pass 3 of 13: score",
                        "pass 4 of 13: allocate",
                        "pass 5 of 13: score",
                        "pass 6 of 13: allocate",
                        "pass 7 of 13: compensate",
                        "pass 8 of 13: correct",
                        "pass 9 of 13: refit",
                        "pass 10 of 13: rewrite",
                        "pass 11 of 13: emit",
                        "pass 12 of 13: verify",
                        "pass 13 of 13: verify");
        assertThat(run.out()).contains("asked to prune 20.00 %");
        assertThat(report().path("ratio_achieved").asDouble()).isBetween(0.19, 0.21);

        Path strict = recipe(
                "{pass: score}",
                "{pass: allocate}",
                "{pass: rewrite}",
                "{pass: verify}",
                "{pass: verify, tolerance: 1e-30}");
        run("llama-gqa-d", "--recipe", strict).failed(1, "verification failed");
    }

    @Test
    void recipesThatWriteNothingAreRefused() throws IOException {
        Path recipe = Files.writeString(
                folder.resolve("recipe.yaml"),
                "version: 2\nname: mine\npasses: [{pass: score}, {pass: allocate}, {pass: rewrite}]");
        run("llama-gqa-d", "--recipe", recipe).failed(2, "recipe mine has no pass emit, so it writes nothing");
    }
}
