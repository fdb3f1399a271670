// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.runtime.SideInputs;
import io.onnxprune.runtime.TrainingSession;
import java.io.IOException;
import java.nio.FloatBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

@Tag("ort")
@Tag("slow")
class RecoverCommandTest {
    @TempDir
    private Path folder;

    private Cli.Run run(Object... more) throws IOException {
        List<Object> arguments = new ArrayList<>(List.of(
                "recover",
                Cli.testModel("llama-gqa-d"),
                "-o",
                folder.resolve("trained.onnx"),
                "--data",
                Cli.tokens(folder),
                "--seq-len",
                "8",
                "--work-dir",
                folder.resolve("work")));
        arguments.addAll(List.of(more));
        return Cli.run(arguments.toArray());
    }

    @Test
    void aTrainedModelIsWrittenAndTheInputIsUnchanged() throws IOException {
        byte[] before = Files.readAllBytes(Cli.testModel("llama-gqa-d"));

        Cli.Run run = run(
                        "--eval",
                        Cli.tokens(folder),
                        "--batch",
                        "4",
                        "--steps",
                        "4",
                        "--export-training-artifacts",
                        folder.resolve("artifacts"),
                        "--lr",
                        "0.01",
                        "--dropout",
                        "0")
                .succeeded();

        assertThat(folder.resolve("artifacts"))
                .isDirectoryContaining("glob:**training_model.onnx")
                .isDirectoryContaining("glob:**eval_model.onnx")
                .isDirectoryContaining("glob:**optimizer_model.onnx")
                .isDirectoryContaining("glob:**checkpoint");
        // They are complete, because a session can start from them.
        Path artifacts = folder.resolve("artifacts");
        TestModels.runtime()
                .train(
                        new TrainingSession.Files(
                                artifacts.resolve("checkpoint"),
                                artifacts.resolve("training_model.onnx"),
                                artifacts.resolve("eval_model.onnx"),
                                artifacts.resolve("optimizer_model.onnx"),
                                artifacts.resolve("frozen.data")),
                        false)
                .close();
        assertThat(run.out()).contains("held-out perplexity", "trained ", "wrote ");
        assertThat(Files.readAllBytes(Cli.testModel("llama-gqa-d"))).isEqualTo(before);
        Cli.run("eval", folder.resolve("trained.onnx"), "--data", Cli.tokens(folder), "--seq-len", "8")
                .succeeded();
    }

    @Test
    void float16IsTooNarrowForGradients() throws IOException {
        run("--precision", "float16").failed(2, "training computes gradients", "--precision bfloat16");
    }

    /**
     * Without adapters, the model with adapter inputs equals the input model. With them, it equals the merged model. Both
     * are trained for one step: in several, the optimizer turns the rounding of one run into other weights.
     */
    @ParameterizedTest
    @CsvSource({"llama-gqa-d,1e-5", "gpt2-g-merged,1e-5", "llama-g16-e-fp16,5e-3"})
    void keptAdaptersAreTheMergedModel(String name, double rounding) throws IOException {
        Path model = Cli.testModel(name);
        Path merged = folder.resolve("merged.onnx");
        Path kept = folder.resolve("kept.onnx");
        Path adapter = folder.resolve("kept.onnx_adapter");
        training(1, model, merged).succeeded();
        training(1, model, kept, "--keep-adapters").succeeded();

        float[] original = logits(model, Optional.empty());
        float[] learned = logits(merged, Optional.empty());

        assertThat(difference(logits(kept, Optional.empty()), original)).isLessThan(rounding);
        assertThat(difference(logits(kept, Optional.of(adapter)), learned)).isLessThan(rounding);
        assertThat(difference(original, learned)).isGreaterThan(2e-2);
    }

    /** A 4-bit matrix is unchanged, and the trained adapters are separate. */
    @Test
    void adaptersCanBeBesideQuantisedWeights() throws IOException {
        Path model = Cli.testModel("llama-g16-e-int4");
        Path kept = folder.resolve("kept.onnx");
        training(model, kept).failed(1, "MatMulNBits", "--keep-adapters trains beside");

        training(model, kept, "--keep-adapters").succeeded();

        Path adapter = folder.resolve("kept.onnx_adapter");
        float[] original = logits(model, Optional.empty());
        assertThat(difference(logits(kept, Optional.empty()), original)).isLessThan(5e-3);
        assertThat(difference(logits(kept, Optional.of(adapter)), original)).isGreaterThan(2e-2);
    }

    private Cli.Run training(Path model, Path out, Object... more) throws IOException {
        return training(6, model, out, more);
    }

    private Cli.Run training(int steps, Path model, Path out, Object... more) throws IOException {
        Path tokens = Cli.tokens(folder);
        Object[] all = {
            "recover",
            model,
            "-o",
            out,
            "--data",
            tokens,
            "--eval",
            tokens,
            "--seq-len",
            "8",
            "--batch",
            "8",
            "--steps",
            steps
        };
        return Cli.run(with(with(all, "--lr", "0.02", "--dropout", "0"), more));
    }

    @Test
    void aModelIsMeasuredWithItsAdapters() throws IOException {
        Path kept = folder.resolve("kept.onnx");
        Path model = Cli.testModel("llama-gqa-d");
        Path tokens = Cli.tokens(folder);
        training(model, kept, "--keep-adapters").succeeded();
        Path adapter = folder.resolve("kept.onnx_adapter");
        Cli.run("eval", kept, "--adapter", adapter, "--data", tokens, "--seq-len", "8")
                .succeeded();
        Cli.run("eval", kept, "--adapter", folder.resolve("none"), "--data", tokens)
                .failed(1, "the adapter file");
        Cli.run("eval", kept, "--adapter", tokens, "--data", tokens).failed(1, "is not an adapter of ONNX Runtime");
        Cli.run("eval", kept, "--adapter", adapter, "--against", model, "--data", tokens)
                .failed(2, "--adapter is for one model");
    }

    private static float[] logits(Path model, Optional<Path> adapter) {
        try (CausalLm opened = CausalLm.open(TestModels.runtime(), model, adapter, SideInputs.NONE, Log.NONE)) {
            FloatBuffer values =
                    opened.logits(new long[][] {{1, 5, 9, 2, 7, 3}}).asFloats();
            float[] copy = new float[values.remaining()];
            values.get(copy);
            return copy;
        }
    }

    /** The largest difference relative to the largest number. */
    private static double difference(float[] first, float[] second) {
        double largest = 0;
        double scale = 0;
        for (int i = 0; i < first.length; i++) {
            largest = Math.max(largest, Math.abs(first[i] - second[i]));
            scale = Math.max(scale, Math.abs(second[i]));
        }
        return largest / scale;
    }

    /** The main command trains on a file like the recover command, and reports the result. */
    @Test
    void aPrunedModelIsTrainedOnAFile() throws IOException {
        Path json = folder.resolve("report.json");
        Cli.Run run = Cli.run(
                        Cli.testModel("llama-gqa-d"),
                        "-o",
                        folder.resolve("small.onnx"),
                        "--method",
                        "magnitude",
                        "--ratio",
                        "0.2",
                        "--recover",
                        Files.writeString(
                                folder.resolve("rows.jsonl"), "{\"input_ids\": [4, 5, 6, 7, 8, 9, 10]}\n".repeat(40)),
                        "--train-steps",
                        "3",
                        "--seq-len",
                        "5",
                        "--batch",
                        "8",
                        "--lr",
                        "0.01",
                        "--work-dir",
                        folder.resolve("work"),
                        "--json",
                        json)
                .succeeded();

        assertThat(run.out()).contains("parameters were trained on", "verified on");
        assertThat(Files.readString(json)).contains("\"recovery\"", "\"curve\"", "\"held_out_rows\"");
    }

    @Test
    void optionsOfAMissingTrainingAreRefused() {
        Object[] prune = {Cli.testModel("llama-gqa-d"), "-o", folder.resolve("small.onnx"), "--method", "magnitude"};
        Cli.run(with(prune, "--lr", "0.1")).failed(2, "--lr is for --recover");
        Cli.run(Cli.testModel("llama-gqa-d"), "-o", folder.resolve("small.onnx"), "--method", "wanda", "--lr", "0.1")
                .failed(2, "--lr is for --recover");
        Cli.run(with(prune, "--recover", folder.resolve("none.jsonl"))).failed(1, "none.jsonl does not exist");
        Cli.run(with(prune, "--recover", "--rank", "none")).failed(2, "--rank must be a whole number");
        Cli.run(with(prune, "--recover", "--lr", "3")).failed(2, "--lr takes a number above 0 and below 1");
        Cli.run(with(prune, "--recover", "--ratio", "0")).failed(2, "use onnx-prune recover");
        Cli.run(with(prune, "--no-recover", "--recover")).failed(2, "contradict");
        Cli.run("--recover", Cli.testModel("llama-gqa-d"), "-o", folder.resolve("small.onnx"))
                .failed(2, "put the model first");
        assertThat(folder.resolve("small.onnx")).doesNotExist();
    }

    private static Object[] with(Object[] arguments, Object... more) {
        return Stream.concat(Arrays.stream(arguments), Arrays.stream(more)).toArray();
    }

    @Test
    void failuresAreOneSentence() throws IOException {
        run("--eval", Cli.tokens(folder), "--lr", "3").failed(2, "--lr takes a number above 0 and below 1");
        run("--eval", Cli.tokens(folder), "--rank", "0").failed(2, "--rank must be a whole number of at least 1");
        run("--eval", Cli.tokens(folder), "--targets", "heads", "--batch", "4").failed(2, "named \"heads\"");
        run("--eval", Cli.tokens(folder), "--targets", "layers.7", "--batch", "4")
                .failed(2, "3 layers");
        run("--eval", Cli.tokens(folder), "--train", "norms", "--keep-adapters").failed(2, "--keep-adapters is for");
        run("--eval", Cli.tokens(folder), "--temperature", "2").failed(2, "--temperature is for --distill");
        run("--eval", Cli.tokens(folder), "--batch", "4000").failed(1, "fewer than one batch of 4000");
        run("--eval", Cli.tokens(folder), "--distill", Cli.testModel("stories-llama"))
                .failed(1, "--distill takes one of the same vocabulary");
        run("--eval", Cli.tokens(folder), "--export-training-artifacts", Cli.tokens(folder))
                .failed(2, "--export-training-artifacts", "would overwrite an input");
        Path longer = Files.writeString(
                folder.resolve("longer.jsonl"), ("{\"input_ids\": [3" + ", 4".repeat(199) + "]}\n").repeat(40));
        Cli.run("recover", Cli.testModel("llama-gqa-d"), "-o", folder.resolve("trained.onnx"), "--data", longer)
                .failed(1, "more than the model's context of 128");
        Cli.run("recover", Cli.testModel("opt-c"), "-o", folder.resolve("trained.onnx"), "--data", longer)
                .failed(1, "the model runs on rows of up to 128 tokens, not of 200; give --seq-len 128 or less");
        run("--eval", folder.resolve("none.jsonl")).failed(1, "none.jsonl");
        assertThat(folder.resolve("trained.onnx")).doesNotExist();
    }
}
