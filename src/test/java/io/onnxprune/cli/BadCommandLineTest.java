// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Map;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Wrong options, data, plans, recipes and paths give one sentence, leave the input unchanged and write no output. */
@Tag("ort")
class BadCommandLineTest {
    private static final Path TOKENIZER = Path.of("../shared/data/stories/tokenizer.json");

    /** A library on the class path of a build with the Maven profile cuda. */
    private static final String CUDA_PROVIDER =
            "org/bytedeco/onnxruntime/linux-x86_64-gpu/libonnxruntime_providers_cuda.so";

    private static final String CPU_REMEDY = "or use --provider cpu";

    @TempDir
    private Path root;

    private Path folder;
    private Path model;
    private Path out;
    private Map<String, Integer> before;

    @BeforeEach
    void copyModel() throws IOException {
        folder = root.resolve("in");
        Cli.copy(Path.of("testmodels", "llama-gqa-d"), folder);
        model = folder.resolve("model.onnx");
        out = Files.createDirectory(root.resolve("out"));
        before = Cli.contents(folder);
    }

    @AfterEach
    void nothingChanged() throws IOException {
        assertThat(Cli.contents(folder)).isEqualTo(before);
        assertThat(out).isEmptyDirectory();
    }

    private Cli.Run prune(Object... more) {
        Object[] arguments = Arrays.copyOf(new Object[] {model, "-o", out.resolve("small.onnx")}, 3 + more.length);
        System.arraycopy(more, 0, arguments, 3, more.length);
        return Cli.run(arguments);
    }

    private Path file(String name, String content) throws IOException {
        return Files.writeString(root.resolve(name), content);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
            --tf32                   | --tf32 is written --precision tf32 now
            --precision tf32         | --precision tf32 has an effect only with --provider cuda
            --precision half         | --precision takes float32 or tf32 or bfloat16 or float16, not "half"
            --precision float16 --method llm-pruner --calibration x | computes gradients, and float16
            --ratio 1                | --ratio must be a number less than 1
            --ratio 1.5              | --ratio must be a number less than 1
            --ratio -0.1             | --ratio must be a number of at least 0
            --ratio NaN              | --ratio must be a number of at least 0
            --ratio abc              | --ratio must be a number, not "abc"
            --ratio 20%              | --ratio must be a number, not "20%"
            --params lots            | --params takes an amount like 1.1B
            --params 0               | to keep must be more than 0
            --size 4XB               | --size takes an amount like 900MB
            --ratio 0.1 --size 4MB   | --ratio and --size each set the target; give one of them
            --latency 5ms --speedup 2 | --latency and --speedup each set the target; give one of them
            --params 1M --memory-target 4MB --context 8 | --params and --memory-target each set the target
            --latency 25             | --latency takes an amount like 25ms, 1.5s or 800us, not "25"
            --latency 25MB           | --latency takes an amount like 25ms
            --latency 0ms            | --latency must be more than 0
            --latency -5ms           | --latency takes an amount like 25ms
            --speedup 1              | --speedup must be more than 1, not 1.0
            --speedup fast           | --speedup must be a number
            --speedup 0.5            | --speedup must be a number of at least 1
            --speedup 2 --latency-of prefill | --latency-of takes prefill:N for a prompt of N tokens, or decode:N
            --speedup 2 --latency-of decode:0 | --latency-of takes prefill:N
            --latency-of decode:64   | --latency-of is for latency and speedup, which were not given
            --memory-target 4MB      | --memory-target needs context
            --memory-target 4XB --context 8 | --memory-target takes an amount like 900MB
            --context 64             | --context is for memory-target, which was not given
            --memory-target 4MB --context 0 | --context must be a whole number of at least 1
            --memory-target 4MB --context 4K | --context must be a whole number
            --method wanda --speedup 2 --calibration x | --speedup has no effect: wanda prunes nothing
            --plan p --speedup 2     | --plan already determines the kept units, so --speedup has no effect
            --prune vocabulary --calibration x --speedup 2 | --prune vocabulary takes a target of parameters or stored bytes
            --prune haeds            | --prune must be one of heads, query_heads, ffn; did you mean "heads"?
            --scope glob             | --scope must be one of local, global; did you mean "global"?
            --layout even            | --layout must be one of per-layer, uniform
            --schedule lin           | --schedule must be one of uniform, log, linear
            --first-ratio 0.1        | first-ratio has no effect in schedule uniform
            --schedule log --first-ratio 1 | first-ratio must be at least 0 and less than 1, not 1.0
            --schedule log --scope global  | schedule log has no effect in scope global
            --method magnitude --schedule log --layout uniform | --schedule log has no effect in a uniform layout
            --round-to 0             | --round-to must be a whole number of at least 1
            --round-heads 1.5        | --round-heads must be a whole number
            --skip-first -1          | --skip-first must be a whole number of at least 0
            --protect fnn.*          | the pattern "fnn.*" protects nothing in this model; did you mean "ffn.0"?
            --method magnitudes      | there is no method "magnitudes", only ; did you mean "magnitude"?
            --method random --recipe x.yaml | --method and --recipe both name a recipe
            --frobnicate             | there is no option --frobnicate
            --thread 3               | there is no option --thread; did you mean "--threads"?
            --threads x              | --threads takes a whole number, not "x"
            --threads -3             | --threads takes 1 or more
            --device -1              | --device takes the number of a GPU
            --seed q                 | --seed takes a whole number, not "q"
            --provider gpu           | --provider takes cpu or cuda, not "gpu"
            --plan p --ratio 0.3     | --plan already determines the kept units, so --ratio has no effect
            --method random --tokenizer x        | --tokenizer is for the data of --calibration or --eval
            --method random --samples 4          | --samples is for the data of --calibration
            --method random --samples 4 --eval x | --samples is for the data of --calibration
            --method random --seq-len 4          | --seq-len is for the data of --calibration or --eval
            --bos 1 --calibration x  | --bos is for the data of --calibration self
            --calibration x --samples 0   | --samples takes 1 or more, not 0
            --calibration x --seq-len 1   | --seq-len takes 2 or more, since a prediction takes two tokens, not 1
            --calibration x --seq-len -8  | --seq-len takes 2 or more
            --calibration x --samples ten | --samples takes a whole number, not "ten"
            --calibration self --bos -1   | --bos takes 0 or more, not -1
            --calibration x:-1       | takes a weight of more than 0 after the file, as in b.txt:2, not "x:-1"
            --calibration x:0        | takes a weight of more than 0
            --calibration x:1.2.3    | takes a weight of more than 0
            --calibration x --calibration x:2   | --calibration names x twice; give it once, with a weight
            --calibration x --calibration ./x   | --calibration names ./x twice
            --calibration self --calibration x  | --calibration self stands for all of the data
            --work-dir pom.xml       | --work-dir pom.xml is a file; name a folder
            --ratio                  | missing required parameter for option '--ratio'
            another.onnx             | one model was expected, and "another.onnx" is another argument
            """)
    void wrongOptions(String options, String sentence) {
        prune((Object[]) options.split(" ")).failed(2, sentence.split("; did |, ;|, only ")[0]);
        for (String part : sentence.split("(?=; did )|, (?=;)")) {
            prune((Object[]) options.split(" ")).failed(2, part.strip());
        }
    }

    @Test
    void wrongCommands() {
        Cli.run().failed(2, "no model was named", "onnx-prune MODEL -o OUT");
        Cli.run(model).failed(2, "no output was named", "-o OUT");
        Cli.run("inspekt", model).failed(2, "there is no command \"inspekt\"; did you mean \"inspect\"?");
        Cli.run("inspect").failed(2, "missing required parameter: 'MODEL'", "onnx-prune inspect --help");
        Cli.run("eval", model).failed(2, "no data was named; add --data FILE for perplexity, or --choices FILE");
        Cli.run("eval", model, "--data", "x", "--seq-len", 1).failed(2, "--seq-len takes 2 or more");
        Cli.run("eval", model, "--data", "x", "--choices", "y").failed(2, "--data and --choices are two measurements");
        Cli.run("eval", model, "--choices", "y", "--prompt", 8).failed(2, "--prompt is for the speed measurement");
        Cli.run("eval", model, "--choices", "y", "--seq-len", 8).failed(2, "--seq-len and --stride cut rows of --data");
        Cli.run("eval", model, "--choices", "y", "--side", "a=x").failed(2, "--side goes with the rows of --data");
        Cli.run("eval", model, "--data", "x", "--stride", 8).failed(2, "--stride is for windows of --seq-len N");
        Cli.run("eval", model, "--data", "x", "--seq-len", 8, "--stride", 9).failed(2, "--stride takes 1 to 8");
        Cli.run("eval", model, "--data", "x", "--prompt", -1).failed(2, "--prompt takes a number of tokens");
        Cli.run("inspect", model, "--explain", "loggits").failed(1, "\"loggits\"", "did you mean \"logits\"?");
    }

    @Test
    void targetsThatCannotBeReached() {
        prune("--ratio", "0.99")
                .failed(1, "cannot be reached by pruning heads, ffn: at least ", "(ratio 0.", "ask for less");
        prune("--params", "10").failed(1, "10 parameters cannot be reached", "at least ");
        prune("--size", "1KB").failed(1, "1,000 bytes cannot be reached", "at least ");
        prune("--params", "1B").failed(1, "the model already has only ", "lower the target");
        prune("--memory-target", "1KB", "--context", "100").failed(1, "1,000 bytes cannot be reached", "at least ");
        prune("--memory-target", "1GB", "--context", "100")
                .failed(1, "there is nothing to do: the model already has only ");
        prune("--latency", "1us").failed(1, "0.001 ms cannot be reached", "at least ", "ask for less");
        prune("--latency", "100s").failed(1, "there is nothing to do: the model already has only ", " ms");
    }

    /** Calibration of a large model takes hours. */
    @Test
    void targetsThatCannotBeReachedAreRefusedBeforeCalibration() {
        Cli.Run run = prune("--method", "llm-pruner", "--ratio", "0.99");
        run.failed(1, "cannot be reached by pruning heads, ffn: at least ");
        assertThat(run.err()).doesNotContain("the model writes").doesNotContain("calibration runs");
    }

    @Test
    void modelsThatAreNotThere() throws IOException {
        Path empty = Files.createDirectory(root.resolve("empty"));
        Path several = Files.createDirectory(root.resolve("several"));
        Files.copy(model, several.resolve("a.onnx"));
        Files.copy(model, several.resolve("b.onnx"));

        Cli.run(root.resolve("none.onnx"), "-o", out.resolve("x"))
                .failed(1, "there is no model file or folder", "none.onnx");
        Cli.run(empty, "-o", out.resolve("x")).failed(1, "holds no .onnx file");
        Cli.run(several, "-o", out.resolve("x")).failed(1, "holds several models (a.onnx, b.onnx); name one of them");
    }

    @Test
    void outputsThatAreTheInput() throws IOException {
        Path link = Files.createSymbolicLink(root.resolve("link"), folder);
        Path fileLink = Files.createSymbolicLink(root.resolve("link.onnx"), model);
        Path hardLink = Files.createLink(root.resolve("hard.onnx"), model);

        Cli.run(model, "-o", model).failed(2, "is the input itself; give another name");
        Cli.run(folder, "-o", folder).failed(2, "is the folder of the input; give another folder");
        Cli.run(model, "-o", link).failed(2, "is the folder of the input");
        Cli.run(model, "-o", link.resolve("model.onnx")).failed(2, "is the input itself");
        Cli.run(model, "-o", fileLink).failed(2, "is the input itself");
        Cli.run(model, "-o", hardLink).failed(2, "is the input itself");
        Cli.run(fileLink, "-o", model).failed(2, "is the input itself");
    }

    @Test
    void outputsThatCannotBeWritten() throws IOException {
        Path file = file("file", "x");

        Cli.run(model, "-o", file).failed(1, "is a file where a folder would be written");
        Cli.run(model, "-o", file.resolve("x.onnx")).failed(1, "cannot be written", "is not a folder");
        assumeTrue(Files.isDirectory(Path.of("/proc")));
        Cli.run(model, "-o", "/proc/x.onnx").failed(1, "/proc is not writable; choose another place");
    }

    @Test
    void sideFilesThatCannotBeWritten() throws IOException {
        Path nowhere = root.resolve("nowhere").resolve("x.json");
        Path text = file("notes.txt", "not JSON");

        prune("--json", nowhere).failed(1, "--json", "there is no folder");
        prune("--plan-out", nowhere).failed(1, "--plan-out", "there is no folder");
        prune("--json", root).failed(1, "--json", "is a folder; name a file");
        prune("--json", model).failed(2, "--json", "would overwrite an input");
        prune("--plan-out", folder.resolve("config.json")).failed(2, "--plan-out", "would overwrite an input");
        prune("--json", text).failed(1, "would overwrite a file that is not JSON");
        prune("--dump-ir", text).failed(1, "--dump-ir", "is a file; name a folder");
        Cli.run("inspect", model, "--json", model).failed(2, "would overwrite an input");
        Cli.run("eval", model, "--data", text, "--json", text).failed(2, "would overwrite an input");
        assertThat(text).hasContent("not JSON");
    }

    @Test
    void dataThatCannotBeUsed() throws IOException {
        assertData("is empty", file("empty.jsonl", ""));
        assertData("no row of", file("short.jsonl", "{\"input_ids\": [1]}\n"));
        assertData("is not valid JSON", file("broken.jsonl", "{\"input_ids\": [1,\n"));
        assertData("neither input_ids", file("other.jsonl", "{\"ids\": [1, 2]}\n"));
        assertData("there is no tokenizer; put tokenizer.json beside the model", file("text.txt", "Once upon a time"));
        assertData("does not exist", root.resolve("none.jsonl"));
        assertData("is of an unknown type", file("data.bin", "x"));
        assertData("NumPy", file("data.npy", "x"));
        assertData(
                "outside the model's vocabulary of 320; the tokenizer does not match this model",
                file("foreign.jsonl", "{\"input_ids\": [1, 5000, 2]}\n"));
        Path text = file("text.txt", "Once upon a time");
        Cli.run("eval", model, "--data", text, "--tokenizer", text).failed(1, "the tokenizer", "cannot be read");
        Cli.run("eval", model, "--data", text, "--tokenizer", "none").failed(1, "the tokenizer none does not exist");
    }

    private void assertData(String sentence, Path data) {
        Cli.run("eval", model, "--data", data).failed(1, sentence);
        prune("--calibration", data).failed(1, sentence);
    }

    @Test
    void tokenizerOfAnotherModel() throws IOException {
        assumeTrue(Files.isRegularFile(TOKENIZER));
        Path text = file("text.txt", "Once upon a time there was a little girl. ".repeat(20));

        Cli.run("eval", model, "--data", text, "--tokenizer", TOKENIZER)
                .failed(1, "outside the model's vocabulary of 320", "tokenizer does not match");
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
            versoin: 1                                            | 1:1:  | did you mean "version"?
            version: 1 ~name: x ~passes: []                       | 1:10: | version 1 is not known
            version: 2 ~name: x ~passes: [{pass: scor}]           | 3:17: | did you mean "score"?
            version: 2 ~name: x ~passes: [{pass: score, metrik: magnitude}] | 3:24: | did you mean "metric"?
            version: 2 ~name: x ~passes: [{pass: score, metric: magnitud}]  | 3:32: | did you mean "magnitude"?
            version: 2 ~name: x ~passes: [{pass: allocate}]       | 3:10: | needs scores of the model as it is; put a pass score before it
            version: 2 ~name: x ~passes: []                       | 3:9:  | passes is empty
            version: [1                                           | 2:1:  | not YAML
            """)
    void wrongRecipes(String recipe, String place, String sentence) throws IOException {
        Path file = file("my.yaml", recipe.replace("~", "\n") + "\n");

        prune("--recipe", file).failed(2, "my.yaml:" + place, sentence);
    }

    @Test
    void recipesThatAreNotThere() {
        prune("--recipe", root.resolve("none.yaml")).failed(1, "cannot read the recipe", "no such file or folder");
    }

    @Test
    void wrongPlans() throws IOException {
        Path plan = root.resolve("plan.json");
        Cli.run(model, "--method", "magnitude", "--dry-run", "--plan-out", plan).succeeded();
        String good = Files.readString(plan);

        Cli.run(Cli.testModel("gpt2-cb"), "-o", out.resolve("x.onnx"), "--plan", plan)
                .failed(1, "was made for another model");
        prune("--plan", root.resolve("none.json")).failed(1, "cannot read the plan", "no such file or folder");
        prune("--plan", file("p1", good.substring(0, 200))).failed(1, "is not JSON at line");
        prune("--plan", file("p2", "{}")).failed(1, "is not a plan");
        prune("--plan", file("p3", good.replace("ffn.0", "fnn.0"))).failed(1, "\"fnn.0\"", "did you mean \"ffn.0\"?");
        prune("--plan", file("p4", good.replaceFirst("\"keep\" : \\[", "\"keep\" : [ -1,")))
                .failed(1, "keeps -1 of dimension");
        prune("--plan", file("p5", good.replaceFirst("\"keep\" : \\[[^\\]]*\\]", "\"keep\" : []")))
                .failed(1, "keeps nothing of dimension", "at least one must be kept");
        prune("--plan", file("p6", good.replace("\"dimensions\"", "\"dimension\"")))
                .failed(1, "did you mean \"dimensions\"?");
    }

    @Test
    void providersThatAreNotThere() throws IOException, InterruptedException {
        assumeTrue(!Files.exists(Path.of("/dev/nvidia0")));

        boolean withCuda = getClass().getClassLoader().getResource(CUDA_PROVIDER) != null;
        fresh("--provider", "cuda").failed(1, withCuda ? "CUDA" : "this onnx-prune is built without CUDA", CPU_REMEDY);
        fresh("--ort-library", "/nowhere.so").failed(1, "the ONNX Runtime library /nowhere.so does not exist");
    }

    /** Runs in a separate process, since a process can load only one ONNX Runtime. */
    private Cli.Run fresh(String option, String value) throws IOException, InterruptedException {
        Process process = new ProcessBuilder(Cli.command(
                        model.toString(), "-o", out.resolve("small.onnx").toString(), option, value))
                .start();
        String err = new String(process.getErrorStream().readAllBytes(), StandardCharsets.UTF_8);
        return new Cli.Run(process.waitFor(), "", err);
    }
}
