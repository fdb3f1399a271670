// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Runs in places that are not as usual: names, locales, users without a home, full disks. */
@Tag("ort")
class HostilePlacesTest {
    private static final Path ROOT = Path.of("").toAbsolutePath();
    private static final Path MODEL = Cli.testModel("llama-gqa-d").toAbsolutePath();

    @TempDir
    private Path folder;

    private record Ended(int code, String text) {}

    /** Runs the program in a process of its own. */
    private Ended run(Path in, Map<String, String> environment, List<String> jvm, Object... arguments)
            throws IOException, InterruptedException {
        List<String> command = new ArrayList<>(List.of(
                "/bin/bash",
                "-c",
                "ulimit -f ${FILE_LIMIT:-unlimited}; exec \"$@\"",
                "limited",
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-XX:-UsePerfData"));
        command.addAll(jvm);
        command.addAll(List.of("-cp", classPath(), Main.class.getName()));
        Stream.of(arguments).map(String::valueOf).forEach(command::add);
        ProcessBuilder builder =
                new ProcessBuilder(command).directory(in.toFile()).redirectErrorStream(true);
        environment.forEach((name, value) -> {
            builder.environment().remove(name);
            if (!value.isEmpty()) {
                builder.environment().put(name, value);
            }
        });
        Process process = builder.start();
        String text = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        return new Ended(process.waitFor(), text);
    }

    private static String classPath() {
        return Stream.of(System.getProperty("java.class.path").split(java.io.File.pathSeparator))
                .map(entry -> ROOT.resolve(entry).toString())
                .reduce((one, other) -> one + java.io.File.pathSeparator + other)
                .orElseThrow();
    }

    /** A copy of the model in a folder of another name, which the test's own locale may not have. */
    private Path inFolder(String script) throws IOException, InterruptedException {
        Cli.copy(MODEL.getParent(), folder.resolve("plain"));
        Process process = new ProcessBuilder("/bin/bash", "-c", "cp -r plain " + script)
                .directory(folder.toFile())
                .start();
        assertThat(process.waitFor()).isZero();
        return folder;
    }

    @Test
    void aNameThatTheLocaleDoesNotHave() throws IOException, InterruptedException {
        inFolder("$'caf\\xc3\\xa9'");
        Ended named = run(
                folder,
                Map.of("LC_ALL", "C"),
                List.of(),
                "inspect",
                folder.resolve("plain"),
                "--json",
                "caf\u00e9.json");
        Process process = new ProcessBuilder("/bin/bash", "-c", "cd caf*; pwd; exec \"$@\"", "in", "/bin/true")
                .directory(folder.toFile())
                .start();
        assertThat(process.waitFor()).isZero();

        assertThat(named.text).contains("characters that this locale (US-ASCII) does not have; set LC_ALL=C.UTF-8");
        assertThat(named.text.lines()).hasSize(1);
        assertThat(named.code).isEqualTo(2);
        Ended utf8 = run(folder, Map.of("LC_ALL", "C.UTF-8"), List.of(), "inspect", "caf\u00e9/model.onnx", "--quiet");
        assertThat(utf8.code).as(utf8.text).isZero();
    }

    @Test
    void emojiInEveryPath() throws IOException, InterruptedException {
        Path odd = inFolder("$'\\xf0\\x9f\\x98\\x80'").resolve("\ud83d\ude00");
        Path rows = Cli.tokens(folder);
        for (List<String> more : List.of(List.<String>of(), List.of("--keep-adapters"))) {
            List<Object> arguments = new ArrayList<>(List.of(
                    "recover",
                    odd.resolve("model.onnx"),
                    "-o",
                    odd.resolve("trained.onnx"),
                    "--data",
                    rows,
                    "--eval",
                    rows,
                    "--seq-len",
                    "8",
                    "--batch",
                    "4",
                    "--steps",
                    "2",
                    "--work-dir",
                    odd.resolve("work")));
            arguments.addAll(more);
            Ended ended = run(odd, Map.of("LC_ALL", "C.UTF-8"), List.of(), arguments.toArray());
            assertThat(ended.code).as(ended.text).isZero();
            assertThat(ended.text).doesNotContain("warning:");
        }
    }

    @Test
    void aTemporaryFolderThatCannotBeUsed() throws IOException, InterruptedException {
        Path none = folder.resolve("none");
        Ended ended = run(folder, Map.of(), List.of("-Djava.io.tmpdir=" + none), "inspect", MODEL);

        assertThat(ended.code).isEqualTo(1);
        assertThat(ended.text)
                .startsWith("error: the temporary folder " + none + " cannot be written to (no such file or folder)")
                .contains("-Djava.io.tmpdir=DIR");
    }

    /** A user without an entry: no home, so nothing in the folder of a model is taken for a cache. */
    @Test
    void nothingInTheWorkingFolderIsLoaded() throws IOException, InterruptedException {
        Path temporary = Files.createDirectory(folder.resolve("tmp"));
        Files.createDirectories(folder.resolve("?/.cache/onnx-prune"));
        Path planted = Files.writeString(folder.resolve("?/.cache/onnx-prune/planted"), "x");
        Map<String, Integer> before = Cli.contents(folder.resolve("?"));

        Ended ended = run(
                folder,
                Map.of("HOME", "", "XDG_CACHE_HOME", "."),
                List.of("-Duser.home=?", "-Djava.io.tmpdir=" + temporary),
                MODEL,
                "-o",
                folder.resolve("small.onnx"),
                "--calibration",
                Cli.tokens(folder),
                "--samples",
                "2",
                "--seq-len",
                "8",
                "--method",
                "flap");

        assertThat(ended.code).as(ended.text).isZero();
        assertThat(ended.text).containsOnlyOnce("warning: there is no home folder for a cache");
        assertThat(Cli.contents(folder.resolve("?"))).isEqualTo(before);
        assertThat(planted).hasContent("x");
        assertThat(temporary).isEmptyDirectory();
        assertThat(folder.resolve("onnx-prune")).doesNotExist();
    }

    /** A write that fails, in whatever file, leaves no half result, and the next run succeeds. */
    @ParameterizedTest
    @ValueSource(ints = {1, 16, 64, 200, 400, 640})
    void filesThatCannotGrow(int kilobytes) throws IOException, InterruptedException {
        Path out = folder.resolve("out");
        Path plan = Files.writeString(folder.resolve("plan.json"), "{\"old\": 1}");
        Object[] arguments = {
            MODEL.getParent(),
            "-o",
            out,
            "--method",
            "magnitude",
            "--external-data",
            "--plan-out",
            plan,
            "--json",
            folder.resolve("report.json"),
            "--work-dir",
            folder.resolve("work")
        };
        Ended ended = run(folder, Map.of("FILE_LIMIT", Integer.toString(kilobytes)), List.of(), arguments);

        if (ended.code != 0) {
            assertThat(ended.text.lines().filter(line -> line.startsWith("error: cannot write ")))
                    .as(ended.text)
                    .hasSize(1);
            assertThat(out).doesNotExist();
            assertThat(plan).hasContent("{\"old\": 1}");
        }
        assertThat(folder.resolve("report.json").toFile().exists()).isEqualTo(ended.code == 0);
        Ended again = run(folder, Map.of(), List.of(), arguments);
        assertThat(again.code).as(again.text).isZero();
        assertThat(out.toFile().list())
                .containsExactlyInAnyOrder(
                        "README.md", "config.json", "generation_config.json", "model.onnx", "model.onnx.data");
    }

    @Test
    void namesDoNotReachTheTerminal() throws IOException {
        String escape = Character.toString(0x1b) + "[2J";
        Cli.Run missing = Cli.run("inspect", folder.resolve("x" + escape + "\nerror: y.onnx"));
        missing.failed(1, "x\\u001b[2J error: y.onnx");
        Cli.Run option = Cli.run("inspect", MODEL, "--exp" + escape);
        option.failed(2, "\\u001b");
        assertThat(missing.err() + option.err()).doesNotContain(Character.toString(0x1b));
    }
}
