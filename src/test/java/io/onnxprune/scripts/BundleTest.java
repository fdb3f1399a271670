// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.scripts;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The scripts of the bundle for machines without network, on a bundle with a program that prints its arguments. */
class BundleTest {
    private static final int CONTAINER = 0xba55ed50;

    @TempDir
    Path folder;

    @BeforeEach
    void linux() throws IOException, InterruptedException {
        assumeTrue(System.getProperty("os.name").equals("Linux")
                && System.getProperty("os.arch").equals("amd64")
                && Command.bash(Map.of(), "-c", "command -v xz").exitCode() == 0);
    }

    @Test
    void allScriptsAreValid() throws IOException, InterruptedException {
        List<Path> scripts;
        try (Stream<Path> files = Files.list(Command.script("."))) {
            scripts = files.filter(file -> file.toString().endsWith(".sh")).toList();
        }

        assertThat(scripts).hasSizeGreaterThan(5);
        for (Path script : scripts) {
            Command.bash(Map.of(), "-n", script).succeeded();
        }
    }

    @Test
    void firstStartUnpacksAndAllStartsRun() throws IOException, InterruptedException {
        Path launcher = bundle();
        Map<String, String> place =
                Map.of("ONNX_PRUNE_UNPACKED", folder.resolve("place").toString());

        String first = Command.bash(place, launcher, "eval", "a b").succeeded();
        String second = Command.bash(place, launcher, "inspect").succeeded();
        String printed = Command.bash(place, launcher, "--unpack").succeeded();

        assertThat(first).contains("unpacking to " + folder.resolve("place")).contains("<eval> <a b>");
        assertThat(second).doesNotContain("unpacking").contains("<inspect>");
        assertThat(Path.of(printed.strip(), "runtime", "bin", "java")).isExecutable();
    }

    @Test
    void aFolderThatCannotBeWrittenIsLeftAlone() throws IOException, InterruptedException {
        Path launcher = bundle();
        // Modes do not stop root; a file in the folder's place stops everybody.
        Files.createFile(launcher.resolveSibling("unpacked"));
        Path cache = Files.createDirectory(folder.resolve("cache"));

        String output = Command.bash(Map.of("XDG_CACHE_HOME", cache.toString()), launcher, "eval")
                .succeeded();

        assertThat(output).contains("unpacking to " + cache).contains("<eval>");
    }

    @Test
    void aDamagedPartIsFound() throws IOException, InterruptedException {
        Path launcher = bundle();
        Path part = launcher.resolveSibling("part-001");
        byte[] bytes = Files.readAllBytes(part);
        bytes[bytes.length / 2] ^= 1;
        Files.write(part, bytes);

        Command.Run run = Command.bash(
                Map.of("ONNX_PRUNE_UNPACKED", folder.resolve("place").toString()), launcher, "eval");

        assertThat(run.exitCode()).isEqualTo(1);
        assertThat(run.output()).contains("part-001").contains("a part of the bundle is missing or damaged");
    }

    /** A bundle of two parts. */
    private Path bundle() throws IOException, InterruptedException {
        Path image = folder.resolve("image");
        Path java = image.resolve("runtime/bin/java");
        Files.createDirectories(java.getParent());
        Files.writeString(
                java, "#!/bin/bash\nwhile [[ $1 != -jar ]]; do shift; done\nshift 2\nprintf '<%s> ' \"$@\"\n");
        assertThat(java.toFile().setExecutable(true)).isTrue();
        Path bundle = Files.createDirectories(folder.resolve("bundle"));
        Files.copy(Command.script("bundle-launcher.sh"), bundle.resolve("onnx-prune"));
        Command.bash(
                        Map.of(),
                        "-c",
                        "cd '%s' && tar --create . | xz --x86 --lzma2=preset=1 | split --bytes=200 -d -a 3 - '%s/part-' && cd '%s' && sha256sum part-* >SHA256SUMS"
                                .formatted(image, bundle, bundle))
                .succeeded();
        return bundle.resolve("onnx-prune");
    }

    @Test
    void keptKernelsMoveTogether() throws IOException, InterruptedException {
        byte[] turing = entry(75, 40);
        byte[] ampere = entry(80, 24);
        byte[] hopper = entry(90, 56);
        byte[] kernels = joined(container(turing, ampere, hopper), container(hopper, turing));
        Path library = Files.write(folder.resolve("library.so"), elf(kernels));

        String output = Command.java(Command.script("KeepKernels.java"), library, "80,90")
                .succeeded();

        byte[] expected =
                joined(container(ampere, hopper), new byte[turing.length], container(hopper), new byte[turing.length]);
        assertThat(output).contains("80: 0.0 MB, 90: 0.0 MB");
        assertThat(Files.readAllBytes(library)).isEqualTo(elf(expected));
        assertThat(Command.java(Command.script("KeepKernels.java"), library, "100")
                        .exitCode())
                .isNotZero();
    }

    private static byte[] container(byte[]... entries) {
        byte[] all = joined(entries);
        ByteBuffer head = ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN);
        head.putInt(CONTAINER).putShort((short) 1).putShort((short) 16).putLong(all.length);
        return joined(head.array(), all);
    }

    private static byte[] entry(int capability, int size) {
        ByteBuffer entry = ByteBuffer.allocate(32 + size).order(ByteOrder.LITTLE_ENDIAN);
        entry.putInt(4, 32).putLong(8, size).putInt(28, capability);
        Arrays.fill(entry.array(), 32, 32 + size, (byte) capability);
        return entry.array();
    }

    /** A file with two sections: the kernels, and the names of the sections. */
    private static byte[] elf(byte[] kernels) {
        byte[] names = "\0.nv_fatbin\0.names\0".getBytes(StandardCharsets.US_ASCII);
        int table = 64 + kernels.length + names.length;
        ByteBuffer file = ByteBuffer.allocate(table + 3 * 64).order(ByteOrder.LITTLE_ENDIAN);
        file.putLong(0x28, table).putShort(0x3c, (short) 3).putShort(0x3e, (short) 2);
        file.put(64, kernels).put(64 + kernels.length, names);
        file.putInt(table + 64, 1).putLong(table + 64 + 0x18, 64).putLong(table + 64 + 0x20, kernels.length);
        file.putInt(table + 128, 12)
                .putLong(table + 128 + 0x18, 64 + kernels.length)
                .putLong(table + 128 + 0x20, names.length);
        return file.array();
    }

    private static byte[] joined(byte[]... pieces) {
        ByteBuffer all = ByteBuffer.allocate(
                Stream.of(pieces).mapToInt(piece -> piece.length).sum());
        Stream.of(pieces).forEach(all::put);
        return all.array();
    }
}
