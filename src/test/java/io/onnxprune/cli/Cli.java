// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.PrintWriter;
import java.io.StringWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** Runs the command line in this process. */
final class Cli {
    private Cli() {}

    /** The exit code and the output of a run. */
    record Run(int code, String out, String err) {
        Run succeeded() {
            assertThat(code).as(err).isZero();
            return this;
        }

        /** Checks that the run failed with one sentence that contains all of {@code parts}. */
        void failed(int expected, String... parts) {
            assertThat(code).as(err).isEqualTo(expected);
            assertThat(out).isEmpty();
            assertThat(err.lines().filter(line -> line.startsWith("error: "))).hasSize(1);
            assertThat(err.lines().reduce("", (line, next) -> next))
                    .startsWith("error: ")
                    .contains(parts);
            assertThat(err).doesNotContain("internal failure").doesNotContain("\tat ");
        }
    }

    static Run run(Object... arguments) {
        StringWriter out = new StringWriter();
        StringWriter err = new StringWriter();
        int code = Main.run(
                new PrintWriter(out, true),
                new PrintWriter(err, true),
                Arrays.stream(arguments).map(String::valueOf).toArray(String[]::new));
        return new Run(code, out.toString(), err.toString());
    }

    /** The command that runs the program in a process of its own, with a Java that starts quickly. */
    static List<String> command(Object... arguments) {
        List<String> command = new ArrayList<>(List.of(
                Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-cp",
                System.getProperty("java.class.path"),
                Main.class.getName()));
        Arrays.stream(arguments).map(String::valueOf).forEach(command::add);
        return command;
    }

    /** Adds a method without data, unless the options name a method. Most tests do not depend on the method. */
    static List<Object> withoutData(Object... options) {
        List<Object> all = new ArrayList<>(List.of(options));
        if (!all.contains("--method") && !all.contains("--recipe") && !all.contains("--plan")) {
            all.addAll(0, List.of("--method", "magnitude"));
        }
        return all;
    }

    static Path testModel(String name) {
        return Path.of("testmodels", name, "model.onnx");
    }

    /** Writes rows of tokens that every test model accepts. */
    static Path tokens(Path folder) throws IOException {
        String row = IntStream.range(1, 40).mapToObj(Integer::toString).collect(Collectors.joining(","));
        return Files.writeString(folder.resolve("tokens.jsonl"), ("{\"input_ids\":[" + row + "]}\n").repeat(4));
    }

    /** Copies the files of a folder into a new one. */
    static void copy(Path from, Path to) throws IOException {
        Files.createDirectories(to);
        try (Stream<Path> files = Files.list(from)) {
            for (Path file : files.toList()) {
                Files.copy(file, to.resolve(file.getFileName()));
            }
        }
    }

    /** Every file below {@code root} with a checksum of its content. */
    static Map<String, Integer> contents(Path root) throws IOException {
        Map<String, Integer> found = new TreeMap<>();
        try (Stream<Path> files = Files.walk(root)) {
            for (Path file : files.toList()) {
                boolean regular = Files.isRegularFile(file);
                found.put(root.relativize(file).toString(), regular ? Arrays.hashCode(Files.readAllBytes(file)) : 0);
            }
        }
        return found;
    }

    /**
     * A recipe with these passes between one that provides rows and those that write the result, unless the passes
     * contain them.
     */
    static Path recipe(Path folder, String... passes) throws IOException {
        List<String> all = new ArrayList<>(List.of(passes));
        if (all.stream().noneMatch(pass -> pass.contains("pass: calibrate"))) {
            all.add(0, "{pass: calibrate}");
        }
        int rewrite = all.indexOf("{pass: rewrite}");
        if (rewrite < 0) {
            rewrite = all.size();
            all.add("{pass: rewrite}");
        }
        all.add(rewrite + 1, "{pass: emit}");
        return Files.writeString(
                folder.resolve("recipe.yaml"), "version: 2\nname: mine\npasses:\n  - " + String.join("\n  - ", all));
    }
}
