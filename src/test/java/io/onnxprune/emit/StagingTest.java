// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.diag.UserException;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** No unfinished file remains beside the target, however a run ends. */
class StagingTest {
    @TempDir
    private Path root;

    /** Another process, which stages a file, reports it, and waits to be stopped. */
    static final class Writer {
        private Writer() {}

        public static void main(String[] arguments) throws Exception {
            Path folder = Path.of(arguments[0]);
            try (Staging staging = new Staging(folder)) {
                staging.write(folder.resolve("model.onnx"), new byte[10]);
                System.out.println("staged");
                Thread.sleep(TimeUnit.MINUTES.toMillis(1));
            }
        }
    }

    /** Another process, which writes two files of one content again and again until it is killed. */
    static final class Committer {
        private Committer() {}

        public static void main(String[] arguments) {
            Path folder = Path.of(arguments[0]);
            for (int i = 0; ; i++) {
                try (Staging staging = new Staging(folder)) {
                    staging.write(
                            folder.resolve("model.onnx"), Integer.toString(i).getBytes(StandardCharsets.UTF_8));
                    staging.write(
                            folder.resolve("model.onnx.data"),
                            Integer.toString(i).getBytes(StandardCharsets.UTF_8));
                    staging.commit();
                }
                if (i == 0) {
                    System.out.println("staged");
                }
            }
        }
    }

    private static Process write(Path folder) throws IOException {
        return start(Writer.class, folder);
    }

    private static Process start(Class<?> main, Path folder) throws IOException {
        Process process = new ProcessBuilder(
                        Path.of(System.getProperty("java.home"), "bin", "java").toString(),
                        "-XX:TieredStopAtLevel=1",
                        "-cp",
                        System.getProperty("java.class.path"),
                        main.getName(),
                        folder.toString())
                .redirectErrorStream(true)
                .start();
        BufferedReader lines =
                new BufferedReader(new InputStreamReader(process.getInputStream(), StandardCharsets.UTF_8));
        assertThat(lines.readLine()).isEqualTo("staged");
        return process;
    }

    private static List<Path> in(Path folder) throws IOException {
        try (Stream<Path> all = Files.list(folder)) {
            return all.toList();
        }
    }

    @Test
    void terminatedRunsLeaveNothing() throws Exception {
        Path there = Files.createDirectories(root.resolve("there"));
        for (Path folder : List.of(there, root.resolve("new/folder"))) {
            Process process = write(folder);
            assertThat(in(folder)).hasSize(1);
            process.destroy();
            assertThat(process.waitFor()).isNotZero();
        }

        assertThat(there).isEmptyDirectory();
        assertThat(root.resolve("new")).doesNotExist();
    }

    @Test
    void leftoversOfAKilledRunAreRemovedByTheNext() throws Exception {
        Process alive = write(root);
        Path used = in(root).get(0);
        Process killed = write(root);
        killed.destroyForcibly().waitFor();
        assertThat(in(root)).hasSize(2);

        try (Staging staging = new Staging(root)) {
            staging.write(root.resolve("model.onnx"), new byte[3]);
            assertThat(in(root)).hasSize(2).contains(used);
            staging.commit();
        }

        assertThat(in(root)).containsExactlyInAnyOrder(used, root.resolve("model.onnx"));
        alive.destroyForcibly().waitFor();
    }

    /** A process that is killed at any time leaves the old files or the new ones, never a mixture and never none. */
    @Test
    void killedCommitsAreWhole() throws Exception {
        for (int i = 0; i < 6; i++) {
            Process process = start(Committer.class, root);
            Thread.sleep(10 + 7 * i);
            process.destroyForcibly().waitFor();

            try (Staging staging = new Staging(root)) {
                assertThat(staging.path(root.resolve("other"))).doesNotExist();
            }
            // A folder whose process had no time to lock it has at most the beginning of its lock.
            assertThat(in(root).stream().filter(file -> !Files.isDirectory(file)))
                    .containsExactlyInAnyOrder(root.resolve("model.onnx"), root.resolve("model.onnx.data"));
            assertThat(in(root).stream().filter(Files::isDirectory))
                    .allSatisfy(left -> assertThat(in(left))
                            .allSatisfy(file ->
                                    assertThat(file).hasFileName(".lock.new").isEmptyFile()));
            assertThat(root.resolve("model.onnx.data"))
                    .hasSameBinaryContentAs(root.resolve("model.onnx"))
                    .isNotEmptyFile();
        }
    }

    /** A folder inside is part of the whole: its old files go, and come back, with the others. */
    @Test
    void foldersInsideAreCommittedWithTheRest() throws IOException {
        Path inner = Files.createDirectory(root.resolve("onnx"));
        Files.writeString(inner.resolve("model.onnx"), "old");
        try (Staging staging = new Staging(root)) {
            staging.write(root.resolve("config.json"), new byte[1]);
            staging.write(inner.resolve("model.onnx"), new byte[3]);
            staging.commit();
        }
        assertThat(in(root)).containsExactlyInAnyOrder(root.resolve("config.json"), inner);
        assertThat(in(inner)).containsExactly(inner.resolve("model.onnx"));
        assertThat(inner.resolve("model.onnx")).hasSize(3);

        try (Staging staging = new Staging(root)) {
            staging.write(inner.resolve("model.onnx"), new byte[5]);
            staging.write(root.resolve("config.json"), new byte[5]);
            Files.delete(root.resolve("config.json"));
            Files.createDirectory(root.resolve("config.json"));
            assertThatThrownBy(staging::commit)
                    .isInstanceOf(UserException.class)
                    .hasMessageContaining("config.json is a folder");
        }
        assertThat(in(inner)).containsExactly(inner.resolve("model.onnx"));
        assertThat(inner.resolve("model.onnx")).hasSize(3);
    }

    @Test
    void nothingIsLeftOfNewFoldersInside() {
        Path made = root.resolve("made");
        try (Staging staging = new Staging(made)) {
            staging.write(made.resolve("onnx/model.onnx"), new byte[3]);
        }
        assertThat(made).doesNotExist();
    }

    /** Killed when the old model was aside and the new data had their name: the next process goes on with the commit. */
    @Test
    void aCommitThatBeganIsEnded() throws IOException {
        Path hidden = Files.createDirectory(root.resolve(".onnx-prune-1"));
        Files.createFile(hidden.resolve(".lock"));
        Files.createFile(hidden.resolve(".complete"));
        Files.writeString(hidden.resolve("model.onnx"), "new");
        Files.writeString(hidden.resolve(".old-model.onnx"), "old");
        Files.writeString(hidden.resolve(".old-model.onnx.data"), "old");
        Files.writeString(root.resolve("model.onnx.data"), "new");

        new Staging(root).close();

        assertThat(in(root)).hasSize(2).allSatisfy(file -> assertThat(file).hasContent("new"));
    }

    @Test
    void aCommitThatFailsIsTakenBack() throws IOException {
        Path model = Files.writeString(root.resolve("model.onnx"), "old");
        try (Staging staging = new Staging(root)) {
            staging.write(model, "new".getBytes(StandardCharsets.UTF_8));
            staging.write(root.resolve("config.json"), "new".getBytes(StandardCharsets.UTF_8));
            Files.createDirectory(root.resolve("config.json"));

            assertThatThrownBy(staging::commit)
                    .isInstanceOf(UserException.class)
                    .hasMessageContainingAll("config.json is a folder", "nothing was written");
        }

        assertThat(model).hasContent("old");
        assertThat(root.resolve("config.json")).isEmptyDirectory();
        assertThat(in(root)).hasSize(2);
    }

    @Test
    void filesOfOthersInANewFolderStay() throws IOException {
        Path folder = root.resolve("new/folder");
        try (Staging staging = new Staging(folder)) {
            staging.write(folder.resolve("model.onnx"), new byte[1]);
            Files.writeString(folder.resolve("report.json"), "{}");
        }

        assertThat(in(folder)).containsExactly(folder.resolve("report.json"));
    }

    /** A link in place of a target is replaced, not followed. */
    @Test
    void linksAreReplaced() throws IOException {
        Path blob = Files.writeString(root.resolve("blob"), "old");
        Path model = Files.createSymbolicLink(root.resolve("model.onnx"), blob);
        try (Staging staging = new Staging(root)) {
            staging.write(model, "new".getBytes(StandardCharsets.UTF_8));
            staging.commit();
        }

        assertThat(blob).hasContent("old");
        assertThat(model)
                .hasContent("new")
                .satisfies(file -> assertThat(Files.isSymbolicLink(file)).isFalse());
    }
}
