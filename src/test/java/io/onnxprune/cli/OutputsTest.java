// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.onnx.ModelReader;
import io.onnxprune.onnx.ModelWriter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import picocli.CommandLine;
import picocli.CommandLine.Model.OptionSpec;

/** No run destroys a result or an input: all files of its options are distinct, which is checked before any work. */
@Tag("ort")
class OutputsTest {
    /** Options of each command that name a file that is read. */
    private static final Map<String, List<String>> INPUTS = Map.of(
            "",
            List.of(
                    "--recipe",
                    "--plan",
                    "--vocabulary-keep",
                    "--stats",
                    "--recover",
                    "--calibration",
                    "--eval",
                    "--tokenizer",
                    "--embeddings",
                    "--side",
                    "--ort-library",
                    "--extensions"),
            "inspect",
            List.of("--ort-library"),
            "eval",
            List.of(
                    "--against",
                    "--data",
                    "--choices",
                    "--tokenizer",
                    "--adapter",
                    "--embeddings",
                    "--side",
                    "--ort-library"),
            "sweep",
            List.of("--calibration", "--eval", "--tokenizer", "--embeddings", "--side", "--ort-library"),
            "recover",
            List.of("--data", "--eval", "--tokenizer", "--distill", "--ort-library"));

    /** Options of each command that name a file that is written. */
    private static final Map<String, List<String>> OUTPUTS = Map.of(
            "", List.of("-o", "--plan-out", "--stats-out", "--json"),
            "inspect", List.of("--json"),
            "eval", List.of("--json"),
            "sweep", List.of("--json", "--svg"),
            "recover", List.of("-o", "--json"));

    /** Options that name a folder that is written to. */
    private static final Map<String, List<String>> FOLDERS = Map.of(
            "", List.of("--dump-ir", "--work-dir"),
            "inspect", List.of(),
            "eval", List.of(),
            "sweep", List.of("-o", "--work-dir"),
            "recover", List.of("--work-dir", "--export-training-artifacts"));

    @TempDir
    private Path folder;

    private Path model;

    @BeforeEach
    void copyModel() throws IOException {
        Cli.copy(Cli.testModel("llama-gqa-d").getParent(), folder.resolve("in"));
        model = folder.resolve("in/model.onnx");
    }

    /** A command with what it cannot do without. */
    private List<Object> command(String name, List<Object> options) {
        List<Object> all = new ArrayList<>();
        if (!name.isEmpty()) {
            all.add(name);
        }
        all.add(model);
        if (name.equals("sweep")) {
            all.addAll(List.of("--ratios", "0.1", "--methods", "magnitude"));
            if (!options.contains("--calibration") && !options.contains("--eval")) {
                all.addAll(List.of("--calibration", folder.resolve("tokens.jsonl")));
            }
        }
        boolean trains = name.equals("recover");
        if ((name.isEmpty() || trains) && !options.contains("-o")) {
            all.addAll(List.of("-o", folder.resolve("out/small.onnx")));
        }
        if ((name.equals("eval") || trains) && !options.contains("--data") && !options.contains("--choices")) {
            all.addAll(List.of("--data", folder.resolve("tokens.jsonl")));
        }
        all.addAll(options);
        return all;
    }

    private Cli.Run run(String name, Object... options) {
        return Cli.run(command(name, List.of(options)).toArray());
    }

    static Stream<Arguments> readAndWritten() {
        return INPUTS.keySet().stream()
                .flatMap(name -> INPUTS.get(name).stream()
                        .flatMap(in -> OUTPUTS.get(name).stream().map(out -> Arguments.of(name, in, out))));
    }

    @ParameterizedTest
    @MethodSource("readAndWritten")
    void anInputIsNotOverwritten(String name, String in, String out) throws IOException {
        Path file = Files.writeString(folder.resolve("both.onnx"), "{}");
        Path link = Files.createSymbolicLink(folder.resolve("link.onnx"), file);

        Object given = in.equals("--side") ? "input=" + file : file;
        Cli.Run found = run(name, in, given, out, folder.resolve("in/../link.onnx"));

        // Some of these files cannot be what the option takes, which may be said first.
        assertThat(found.code()).as(found.err()).isBetween(1, 2);
        assertThat(found.err().lines()).hasSize(1);
        assertThat(file).hasContent("{}");
        assertThat(link).isSymbolicLink();
        if (!Set.of("--recipe", "--extensions", "--against", "--distill", "--plan", "--stats")
                .contains(in)) {
            found.failed(2, "would overwrite an input, ");
        }
    }

    static Stream<Arguments> writtenTwice() {
        return OUTPUTS.keySet().stream()
                .flatMap(name -> OUTPUTS.get(name).stream()
                        .flatMap(one -> OUTPUTS.get(name).stream()
                                .filter(other -> one.compareTo(other) < 0)
                                .map(other -> Arguments.of(name, one, other))));
    }

    @ParameterizedTest
    @MethodSource("writtenTwice")
    void outputsAreDistinct(String name, String one, String other) throws IOException {
        Path file = folder.resolve("x.onnx");
        Path link = Files.createSymbolicLink(folder.resolve("link.onnx"), Path.of("x.onnx"));

        run(name, one, file, other, file).failed(2, one, other, " are one file; give each a name of its own");
        run(name, one, folder.resolve("in/../x.onnx"), other, link).failed(2, " are one file");
        run(name, one, link, other, file).failed(2, " are one file");
        assertThat(file).doesNotExist();
    }

    /** The model's own files, and those that the program writes without an option that names them. */
    @Test
    void filesThatNoOptionNames() throws IOException {
        Path external = Files.createDirectory(folder.resolve("external")).resolve("model.onnx");
        ModelWriter.write(ModelReader.read(model), external, true);
        Path data = external.resolveSibling("model.onnx.data");
        Path hard = Files.createLink(folder.resolve("hard"), data);
        byte[] before = Files.readAllBytes(data);

        for (Path output : List.of(data, hard, external.resolveSibling("../external/model.onnx.data"))) {
            Cli.run("inspect", external, "--json", output).failed(2, "would overwrite an input, ");
            Cli.run(external, "-o", folder.resolve("a.onnx"), "--plan-out", output)
                    .failed(2, "would overwrite an input, ");
        }
        Cli.run("inspect", external, "--json", external.resolveSibling("./model.onnx"))
                .failed(2, "would overwrite an input, ");
        Cli.run("eval", model, "--against", external, "--data", external, "--json", data)
                .failed(2, "would overwrite an input, ");
        assertThat(data).hasBinaryContent(before);

        run("", "-o", folder.resolve("a.onnx"), "--json", folder.resolve("a.onnx.data"))
                .failed(2, "are one file");
        run("recover", "-o", folder.resolve("a.onnx"), "--keep-adapters", "--json", folder.resolve("a.onnx_adapter"))
                .failed(2, "are one file");
        Files.createDirectory(folder.resolve("out"));
        run("", "-o", folder.resolve("out"), "--json", folder.resolve("out/config.json"))
                .failed(2, "would write a file of the same name");
        run("", "-o", folder.resolve("out"), "--plan-out", folder.resolve("out/model.onnx.data"))
                .failed(2, "would write a file of the same name");
        assertThat(folder.resolve("out")).isEmptyDirectory();
    }

    @Test
    void foldersApart() throws IOException {
        Path out = folder.resolve("out");
        Path link = Files.createSymbolicLink(folder.resolve("link"), out);

        run("", "-o", out, "--dump-ir", link).failed(2, "are one folder");
        run("", "-o", out, "--dump-ir", link.resolve("ir")).failed(2, " lies in -o ");
        run("", "-o", out.resolve("model"), "--dump-ir", out).failed(2, " lies in --dump-ir ");
        run("", "-o", out, "--work-dir", out.resolve("work")).failed(2, " lies in -o ");
        run("", "-o", out.resolve("x.onnx"), "--json", folder.resolve("in")).failed(1, "is a folder; name a file");
        run("", "-o", out.resolve("x.onnx"), "--json", out).failed(2, " lies in --json ");
        run("recover", "-o", out, "--export-training-artifacts", out.resolve("in"))
                .failed(2, " lies in -o ");
        assertThat(out).doesNotExist();
        Path rows = Files.createDirectory(folder.resolve("ir")).resolve("00-import.txt");
        Files.writeString(rows, "x");
        run("", "--eval", rows, "--dump-ir", rows.getParent()).failed(2, "would overwrite an input, ");
        assertThat(rows).hasContent("x");
    }

    /** What is usual stays possible. */
    @Test
    void resultsSideBySide() throws IOException {
        Path out = Files.createDirectory(folder.resolve("out"));
        Cli.run(
                        folder.resolve("in"),
                        "-o",
                        out,
                        "--method",
                        "magnitude",
                        "--json",
                        out.resolve("report.json"),
                        "--plan-out",
                        out.resolve("plan.json"),
                        "--work-dir",
                        folder)
                .succeeded();
        Cli.run(model, "-o", folder.resolve("in/small.onnx"), "--method", "magnitude", "--json", "/dev/null")
                .succeeded();

        assertThat(out.toFile().list())
                .containsExactlyInAnyOrder(
                        "README.md", "config.json", "generation_config.json", "model.onnx", "plan.json", "report.json");
        assertThat(Path.of("/dev/null").toFile().isFile()).isFalse();
    }

    /** A new option that names a file has to be put into a list above, and into {@code RunFiles}. */
    @Test
    void allOptionsThatNameFilesAreKnown() {
        CommandLine main = Main.commandLine();
        Map<String, CommandLine> commands = new java.util.TreeMap<>(main.getSubcommands());
        commands.put("", main);
        commands.forEach((name, command) -> {
            Set<String> found = new TreeSet<>();
            for (OptionSpec option : command.getCommandSpec().options()) {
                boolean isFile = option.type() == Path.class
                        || option.auxiliaryTypes()[0] == Path.class
                        || option.paramLabel().contains("FILE");
                if (isFile) {
                    found.add(option.names()[0]);
                }
            }
            Set<String> known = new TreeSet<>(INPUTS.get(name));
            known.addAll(OUTPUTS.get(name));
            known.addAll(FOLDERS.get(name));
            assertThat(known).as(name).containsAll(found);
        });
    }
}
