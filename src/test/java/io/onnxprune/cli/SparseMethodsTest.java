// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Methods that set weights to zero without changing shapes, on the command line. */
@Tag("ort")
@Tag("slow")
class SparseMethodsTest extends PruningRuns {
    /** Where no weight is to become zero, nothing is calibrated and no text is written. */
    @ParameterizedTest
    @ValueSource(strings = {"wanda", "sparsegpt", "llm-surgeon-zeros", "llm-surgeon-unstructured", "auto", "flap"})
    void ratioZeroMeasuresNothing(String method, @TempDir Path empty) {
        Cli.Run run = Cli.run(
                        Cli.testModel("llama-gqa-d"),
                        "-o",
                        empty.resolve("same.onnx"),
                        "--method",
                        method,
                        "--ratio",
                        0,
                        "--work-dir",
                        empty.resolve("work"))
                .succeeded();

        assertThat(run.err()).doesNotContain("the model writes");
        assertThat(empty.resolve("work")).doesNotExist();
    }

    /** The sparsity of the matrices that the run changed. */
    private double zeros(String model) {
        Map<String, Tensor> before =
                ModelReader.read(Cli.testModel(model)).graph().initializers();
        long zeros = 0;
        long all = 0;
        for (Map.Entry<String, Tensor> entry :
                ModelReader.read(out).graph().initializers().entrySet()) {
            Tensor was = before.get(entry.getKey());
            assertThat(was.shape()).isEqualTo(entry.getValue().shape());
            boolean matrix = was.dtype().isFloat() && was.rank() == 2;
            float[] values = matrix ? entry.getValue().toFloats() : new float[0];
            if (matrix && !Arrays.equals(values, was.toFloats())) {
                all += values.length;
                for (float value : values) {
                    zeros += value == 0 ? 1 : 0;
                }
            }
        }
        assertThat(all).isEqualTo(count("weights"));
        return (double) zeros / all;
    }

    private long count(String field) {
        try {
            return report().path("zeros").path(field).asLong();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    @ParameterizedTest
    @CsvSource({
        "sparsegpt, llama-gqa-d, 21",
        "sparsegpt-2-4, llama-g16-e-fp16, 10",
        "wanda, gpt2-g-merged, 8",
        "wanda-2-4, opt-f-a-bert, 12",
        "llm-surgeon-unstructured, llama-gqa-d, 21",
        "llm-surgeon-2-4, opt-f-a-bert, 12"
    })
    void halfOfTheWeightsBecomeZeroInPlace(String method, String model, int matrices) throws IOException {
        Cli.Run run = run(model, "--method", method).succeeded();

        assertThat(run.out())
                .contains(
                        "50.00 % of the ",
                        " weights of " + matrices + " matrices are zero; the file size does not change")
                .contains("verified on ", "calibration: 21 windows")
                .doesNotContain("asked to prune", "nothing was pruned");
        assertThat(zeros(model)).isCloseTo(0.5, within(0.001));
        assertThat(count("matrices")).isEqualTo(matrices);
        assertThat(report().path("ratio_requested").isNull()).isTrue();
        assertThat(report().path("parameters_after")).isEqualTo(report().path("parameters_before"));
        assertThat(report().path("evaluation_after").path("perplexity").asDouble())
                .isNotEqualTo(
                        report().path("evaluation_before").path("perplexity").asDouble());
        assertThat(Files.size(out)).isCloseTo(Files.size(Cli.testModel(model)), within(8192L));
    }

    @Test
    void theRatioIsTheSparsity() {
        run("llama-gqa-d", "--method", "wanda", "--ratio", "0.25").succeeded();
        assertThat(zeros("llama-gqa-d")).isCloseTo(0.25, within(0.01));
    }

    @Test
    void aPrunedModelCanBeSparseToo() throws IOException {
        Path recipe = recipe(
                "{pass: score, metric: wanda}",
                "{pass: allocate, prune: [heads, ffn], ratio: 0.2, round-to: 2}",
                "{pass: sparsify, by: wanda, pattern: \"1:2\"}",
                "{pass: rewrite}",
                "{pass: verify}");
        Cli.Run run = run("llama-gqa-d", "--recipe", recipe).succeeded();

        assertThat(run.out()).contains("asked to prune 20.00 %", "matrices are zero");
        assertThat(report().path("ratio_achieved").asDouble()).isCloseTo(0.2, within(0.01));
        assertThat(2 * count("zeros")).isGreaterThanOrEqualTo(count("weights"));
    }

    @Test
    void optionsWithoutEffectAreRefused() throws IOException {
        run("llama-gqa-d", "--method", "wanda", "--prune", "ffn")
                .failed(2, "--prune has no effect: wanda prunes nothing, it makes weights zero");
        run("llama-gqa-d", "--method", "wanda", "--refit").failed(2, "--refit has no effect");
        run("llama-gqa-d", "--method", "wanda", "--size", "1MB").failed(2, "--size has no effect");
        run("llama-gqa-d", "--method", "wanda-2-4", "--ratio", "0.3")
                .failed(2, "ratio has no effect with pattern 2:4, which makes 2 of every 4 weights zero");
        run("llama-gqa-d", "--method", "wanda", "--ratio", "1")
                .failed(2, "--ratio must be a number less than 1, not \"1\"");
        for (String pattern : List.of("4:2", "0:4", "2:4:8", "unstructred", "2:4294967296")) {
            run("llama-gqa-d", "--recipe", recipe("{pass: sparsify, pattern: \"" + pattern + "\"}"))
                    .failed(
                            2,
                            "recipe.yaml:5:31: pattern must be unstructured, structured, or n:m for n zeros in every m weights");
        }
    }

    @Test
    void rowsAndColumnsOfMatricesBecomeZeroAndNothingIsRemoved() throws IOException {
        Cli.Run run = run("llama-gqa-d", "--method", "llm-surgeon-zeros", "--ratio", "0.3")
                .succeeded();

        assertThat(run.out()).contains(" matrices are zero; the file size does not change", "verified on ");
        assertThat(run.err()).contains("making up to 20.0 % of the zeros", "making up to 100.0 % of the zeros");
        double share = (double) count("zeros") / count("weights");
        assertThat(share).isBetween(0.29, 0.3);
        assertThat(report().path("parameters_after")).isEqualTo(report().path("parameters_before"));
    }

    @Test
    void groupsMayHaveFewerZerosThanTheyCould() throws IOException {
        Path recipe =
                recipe("{pass: calibrate, draws: 1}", "{pass: sparsify, by: surgeon, pattern: \"2:4\", ratio: 0.25}");
        run("llama-gqa-d", "--recipe", recipe).succeeded();
        assertThat((double) count("zeros") / count("weights")).isCloseTo(0.25, within(0.001));

        run("llama-gqa-d", "--recipe", recipe, "--ratio", "0.6")
                .failed(2, "ratio 0.6 is more than the share of zeros that pattern 2:4 has, which is 0.5");
    }

    @Test
    void optionsOfTheSurgeonAreRefusedElsewhere() throws IOException {
        run("llama-gqa-d", "--recipe", recipe("{pass: sparsify, by: wanda, pattern: \"structured\"}"))
                .failed(2, "recipe.yaml:5:5: pattern structured is known only to by surgeon");
        for (String option : List.of("gradient-damping: 0.1", "correlate: 9")) {
            run("llama-gqa-d", "--recipe", recipe("{pass: sparsify, by: sparsegpt, " + option + "}"))
                    .failed(
                            2,
                            "pass sparsify has no key \"" + option.substring(0, option.indexOf(':'))
                                    + "\"; only by surgeon takes it");
        }
        run("llama-gqa-d", "--recipe", recipe("{pass: sparsify, by: surgeon, pattern: structured, correlate: 9}"))
                .failed(2, "correlate has no effect with pattern structured");
        run("llama-gqa-d", "--recipe", recipe("{pass: calibrate, draws: 1}", "{pass: sparsify, by: wanda}"))
                .failed(2, "calibrate draws, which only score metric obs with curvature loss and sparsify by surgeon");
        run("llama-gqa-d", "--recipe", recipe("{pass: sparsify, by: surgeon, steps: 2}"))
                .failed(2, "pass sparsify has no key \"steps\"; the steps of a block are said by a repeat");
        run("llama-gqa-d", "--method", "llm-surgeon-zeros", "--ratio", "1")
                .failed(2, "--ratio must be a number less than 1, not \"1\"");
    }

    @Test
    void groupsThatDoNotDivideAndQuantisedWeights() throws IOException {
        run("llama-gqa-d", "--recipe", recipe("{pass: sparsify, pattern: \"2:5\"}"))
                .failed(1, "cannot be divided into groups of 5");
        run("llama-gqa-d", "--recipe", recipe("{pass: sparsify, by: surgeon, pattern: \"2:5\"}"))
                .failed(1, "cannot be divided into groups of 5");
        run("llama-g16-e-int4", "--method", "wanda").failed(1, "no weight of this model can become zero: node ");
    }
}
