// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.withinPercentage;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.LastPosition;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Models whose interface is another than token ids to logits, on the command line. */
@Tag("ort")
class ModelFormsTest {
    private static final int ROWS = 24;
    private static final int LENGTH = 12;

    @TempDir
    private Path folder;

    private Path rows;

    @BeforeEach
    void writeRows() throws IOException {
        Random random = new Random(4);
        String text = IntStream.range(0, ROWS)
                .mapToObj(row ->
                        random.ints(LENGTH, 1, 300).mapToObj(Integer::toString).collect(Collectors.joining(",")))
                .collect(Collectors.joining("]}\n{\"input_ids\":[", "{\"input_ids\":[", "]}\n"));
        rows = Files.writeString(folder.resolve("rows.jsonl"), text);
    }

    private Cli.Run prune(Path model, String method, Object... options) {
        List<Object> all = new ArrayList<>(List.of(model, "--method", method));
        all.addAll(List.of(options));
        if (!all.contains("--params")) {
            all.addAll(List.of("--ratio", "0.2"));
        }
        if (!method.equals("magnitude")) {
            all.addAll(List.of("--work-dir", folder.resolve("work")));
        }
        all.addAll(List.of("--json", folder.resolve("report.json"), "-o", folder.resolve("small.onnx")));
        return Cli.run(all.toArray());
    }

    private JsonNode report() throws IOException {
        return new ObjectMapper().readTree(folder.resolve("report.json").toFile());
    }

    private double perplexity(Path model, Object... options) throws IOException {
        Path json = folder.resolve("eval.json");
        List<Object> all = new ArrayList<>(List.of("eval", model, "--data", rows, "--prompt", 0, "--json", json));
        all.addAll(List.of(options));
        Cli.run(all.toArray()).succeeded();
        return new ObjectMapper().readTree(json.toFile()).path("perplexity").asDouble();
    }

    /** The model beside it gives the embeddings, so everything is as for the model of tokens. */
    @ParameterizedTest
    @ValueSource(strings = {"llm-pruner", "flap"})
    void embeddingsOfAModelBeside(String method) throws IOException {
        Path model = ModelForms.write(ModelForms.ofEmbeddings(ModelForms.FUSED), folder.resolve("vl/model.onnx"));
        ModelForms.write(ModelForms.embeddings(ModelForms.FUSED), folder.resolve("vl/embed.onnx"));
        assertThat(perplexity(model)).isCloseTo(perplexity(Cli.testModel(ModelForms.FUSED)), withinPercentage(0.01));

        prune(Cli.testModel(ModelForms.FUSED), method, "--calibration", rows).succeeded();
        JsonNode expected = report();
        Files.delete(folder.resolve("small.onnx"));
        // The table of embeddings is not in this model.
        long target = expected.path("parameters_after").asLong() - 320 * 64;
        prune(model, method, "--calibration", rows, "--params", target).succeeded();

        assertThat(report().path("evaluation_before").path("perplexity").asDouble())
                .isCloseTo(expected.path("evaluation_before").path("perplexity").asDouble(), withinPercentage(0.01));
        // A target that is rounded otherwise may move one unit.
        for (String name : List.of("kv_heads.0", "kv_heads.1", "ffn.0", "ffn.1")) {
            assertThat(kept(report(), name)).as(name).isBetween(kept(expected, name) - 1, kept(expected, name) + 1);
        }
    }

    private static int kept(JsonNode report, String name) {
        return StreamSupport.stream(report.path("dimensions").spliterator(), false)
                .filter(dimension -> dimension.path("name").asText().equals(name))
                .findFirst()
                .orElseThrow()
                .path("kept")
                .asInt();
    }

    @ParameterizedTest
    @ValueSource(strings = {"slimgpt", "llm-pruner", "auto"})
    void rowsOfEmbeddings(String method) throws IOException {
        Path model = ModelForms.write(ModelForms.ofEmbeddings(ModelForms.FUSED), folder.resolve("vl/model.onnx"));
        Random random = new Random(6);
        float[] values = new float[ROWS * LENGTH * 64];
        IntStream.range(0, values.length).forEach(i -> values[i] = (float) random.nextGaussian());
        Path vectors = ModelForms.numpy(folder.resolve("rows.npy"), new int[] {ROWS, LENGTH, 64}, values);

        Cli.Run run = prune(model, method, "--calibration", vectors).succeeded();

        assertThat(run.out())
                .contains("verified on", "cosine of pooled outputs")
                .doesNotContain("perplexity");
        assertThat(report().path("similarity").path("cosine").asDouble()).isBetween(0.2, 1.0);
        assertThat(report().path("evaluation_before").isNull()).isTrue();
    }

    @Test
    void embeddingsThatNothingGives() throws IOException {
        Path model = ModelForms.write(ModelForms.ofEmbeddings(ModelForms.FUSED), folder.resolve("vl/model.onnx"));

        prune(model, "slimgpt", "--calibration", rows)
                .failed(
                        1,
                        "input \"inputs_embeds\" takes embeddings, and no model in the folder turns tokens into them");
        prune(model, "magnitude").succeeded();
        assertThat(Cli.run("inspect", model).succeeded().out()).contains("kv_heads.0");
    }

    /** Shorter rows are padded, so the perplexity is that of the model with symbols. */
    @ParameterizedTest
    @ValueSource(strings = {"slimgpt", "llm-pruner"})
    void everyAxisIsANumber(String method) throws IOException {
        Model dynamic = ModelForms.read(ModelForms.PLAIN);
        Path model = ModelForms.write(
                ModelForms.withExtents(dynamic, ModelForms.extents("batch", 1, "sequence", LENGTH)),
                folder.resolve("npu/model.onnx"));
        assertThat(perplexity(model)).isCloseTo(perplexity(Cli.testModel(ModelForms.PLAIN)), withinPercentage(0.01));
        assertThat(perplexity(model, "--seq-len", 7))
                .isCloseTo(perplexity(Cli.testModel(ModelForms.PLAIN), "--seq-len", 7), withinPercentage(0.01));

        Cli.Run run = prune(model, method, "--calibration", rows).succeeded();

        assertThat(run.out()).contains("verified on 12 tokens");
        assertThat(report().path("ratio_achieved").asDouble()).isBetween(0.17, 0.22);
    }

    @Test
    void rowsLongerThanTheOnlyLength() throws IOException {
        Path model = ModelForms.write(
                ModelForms.withExtents(
                        ModelForms.read(ModelForms.PLAIN), ModelForms.extents("batch", 1, "sequence", 5)),
                folder.resolve("npu/model.onnx"));

        Cli.run("eval", model, "--data", rows).failed(1, "rows of 5 tokens only", "--seq-len 5");
    }

    @ParameterizedTest
    @ValueSource(strings = {"magnitude", "slimgpt", "llm-pruner"})
    void cachesOfFixedLength(String method) throws IOException {
        Path model = ModelForms.write(
                ModelForms.withExtents(
                        ModelForms.read(ModelForms.FUSED),
                        ModelForms.extents("batch_size", 1, "past_sequence_length", 32, "kv_cache_dim", 16)),
                folder.resolve("npu/model.onnx"));

        Cli.Run run = method.equals("magnitude")
                ? prune(model, method).succeeded()
                : prune(model, method, "--calibration", rows).succeeded();

        assertThat(run.out()).contains("verified on", "cached decode step");
        Model small = ModelReader.read(folder.resolve("small.onnx"));
        assertThat(small.graph().inputs().stream()
                        .filter(input -> input.name().startsWith("past"))
                        .map(input -> input.shape().get(2).size()))
                .containsOnly(32L);
    }

    /** Eight tokens a step, behind the cache; nothing in the graph varies. */
    @ParameterizedTest
    @ValueSource(strings = {"magnitude", "slimgpt", "llm-pruner"})
    void stepsOfFixedLength(String method) throws IOException {
        Path model = Path.of("src", "test", "resources", "forms", "fixed-steps", "model.onnx");

        Cli.Run run = method.equals("magnitude")
                ? prune(model, method, "--prune", "layers").succeeded()
                : prune(model, method, "--calibration", rows, "--seq-len", 8).succeeded();

        assertThat(run.out()).contains("verified on 8 tokens", "cached decode step");
        assertThat(Cli.run("inspect", model).succeeded().out()).contains("kv_heads.1", "2 layers (4 residual blocks)");
    }

    @ParameterizedTest
    @ValueSource(strings = {"magnitude", "slimgpt", "llm-pruner", "auto"})
    void encodersAreComparedByTheirOutputs(String method) throws IOException {
        Path model = ModelForms.write(ModelForms.encoder(ModelForms.PLAIN), folder.resolve("bert/model.onnx"));

        Cli.Run run = prune(model, method, "--calibration", rows).succeeded();

        assertThat(run.out())
                .contains("verified on", "cosine of pooled outputs")
                .doesNotContain("perplexity");
        assertThat(report().path("similarity").path("pooled_cosine").asDouble()).isBetween(0.2, 1.0);
    }

    @Test
    void anEncoderWritesNoText() throws IOException {
        Path model = ModelForms.write(ModelForms.encoder(ModelForms.PLAIN), folder.resolve("bert/model.onnx"));

        prune(model, "slimgpt").failed(1, "no output over a vocabulary", "give --calibration FILE");
        Cli.run("eval", model, "--data", rows).failed(1, "no output over a vocabulary", "last_hidden_state");
    }

    /** The perplexity of each row depends on the entry that belongs to it. */
    @Test
    void contentsBesideTheTokens() throws IOException {
        Path model = ModelForms.write(ModelForms.withContext(ModelForms.PLAIN), folder.resolve("ed/model.onnx"));
        float[] zeros = new float[ROWS * 3 * 320];
        Path none = ModelForms.numpy(folder.resolve("none.npy"), new int[] {ROWS, 3, 320}, zeros);
        float[] values = zeros.clone();
        for (int row = 0; row < ROWS; row++) {
            values[row * 3 * 320 + row] = 3;
        }
        Path some = ModelForms.numpy(folder.resolve("some.npy"), new int[] {ROWS, 3, 320}, values);
        double plain = perplexity(Cli.testModel(ModelForms.PLAIN));

        assertThat(perplexity(model, "--side", "context=" + none)).isCloseTo(plain, withinPercentage(0.01));
        assertThat(Math.abs(perplexity(model, "--side", "context=" + some) - plain))
                .isGreaterThan(0.01);
        Cli.Run run = prune(model, "llm-pruner", "--calibration", rows, "--side", "context=" + some)
                .succeeded();
        assertThat(run.err()).doesNotContain("noise");
        assertThat(prune(model, "slimgpt", "--calibration", rows).succeeded().err())
                .contains("input \"context\" does not follow from the tokens, so it gets noise");
    }

    @Test
    void contentsThatDoNotFit() throws IOException {
        Path model = ModelForms.write(ModelForms.withContext(ModelForms.PLAIN), folder.resolve("ed/model.onnx"));
        Path few = ModelForms.numpy(folder.resolve("few.npy"), new int[] {2, 1, 320}, new float[640]);

        prune(model, "slimgpt", "--calibration", rows, "--side", "context=" + few)
                .failed(1, "has 2 entries for the 24 rows");
        prune(model, "slimgpt", "--calibration", rows, "--side", "other=" + few)
                .failed(1, "--side names \"other\"", "[context]");
        prune(model, "slimgpt", "--calibration", rows, "--embeddings", model)
                .failed(1, "--embeddings is for a model that takes embeddings");
    }

    /** The selection is left out of losses, and kept in what is written. */
    @ParameterizedTest
    @ValueSource(strings = {"slimgpt", "llm-pruner"})
    void logitsOfTheLastPosition(String method) throws IOException {
        Path model = ModelForms.write(
                LastPosition.added(ModelForms.read("stories-llama")), folder.resolve("last/model.onnx"));
        assertThat(perplexity(model)).isCloseTo(perplexity(Cli.testModel("stories-llama")), withinPercentage(0.01));
        prune(Cli.testModel("stories-llama"), method, "--calibration", rows, "--last-logits")
                .succeeded();
        JsonNode expected = report();
        Model added = ModelReader.read(folder.resolve("small.onnx"));
        Files.delete(folder.resolve("small.onnx"));

        prune(model, method, "--calibration", rows).succeeded();

        assertThat(report().path("dimensions")).isEqualTo(expected.path("dimensions"));
        assertThat(report().path("evaluation_after").path("perplexity").asDouble())
                .isCloseTo(expected.path("evaluation_after").path("perplexity").asDouble(), withinPercentage(0.01));
        Model kept = ModelReader.read(folder.resolve("small.onnx"));
        assertThat(kept.graph().outputs().get(0).shape().get(1).size()).isEqualTo(1);
        assertThat(added.graph().outputs().get(0).shape().get(1).size()).isEqualTo(1);
    }
}
