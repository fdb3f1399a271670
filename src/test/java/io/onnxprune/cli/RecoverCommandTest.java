package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

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
    void aTrainedModelIsWrittenAndTheInputStaysAsItIs() throws IOException {
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
        assertThat(run.out()).contains("held-out perplexity", "trained ", "wrote ");
        assertThat(Files.readAllBytes(Cli.testModel("llama-gqa-d"))).isEqualTo(before);
        Cli.run("eval", folder.resolve("trained.onnx"), "--data", Cli.tokens(folder), "--seq-len", "8")
                .succeeded();
    }

    @Test
    void whatCannotBeIsOneSentence() throws IOException {
        run("--eval", Cli.tokens(folder), "--lr", "3").failed(2, "--lr takes a number above 0 and below 1");
        run("--eval", Cli.tokens(folder), "--rank", "0").failed(2, "--rank takes 1 or more");
        run("--eval", Cli.tokens(folder), "--targets", "heads").failed(2, "--targets takes attention and ffn");
        run("--eval", Cli.tokens(folder), "--batch", "4000").failed(1, "fewer than one batch of 4000");
        run("--eval", folder.resolve("none.jsonl")).failed(1, "none.jsonl");
        assertThat(folder.resolve("trained.onnx")).doesNotExist();
    }
}
