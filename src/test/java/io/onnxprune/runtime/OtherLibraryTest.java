// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.onnxprune.TestModels;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The library of {@code --ort-library} may be of another version than the Java classes. */
@Tag("ort")
class OtherLibraryTest {
    private static final String LIBRARY = "ai/onnxruntime/native/linux-x64/libonnxruntime.so";

    @TempDir
    private Path folder;

    @Test
    void aLibraryWithSymbolsOfAnotherVersionIsLoaded() throws IOException, InterruptedException {
        assumeTrue(
                System.getProperty("os.name").equals("Linux")
                        && System.getProperty("os.arch").equals("amd64"),
                "the library is for Linux on x86-64");
        String version = "VERS_" + TestModels.runtime().version();
        Path library = folder.resolve("libonnxruntime.so.1");
        Files.write(library, renamed(library(), version, version.replaceAll("\\d(?=\\D*$)", "9")));

        String output = inspect("--ort-library=" + library);

        assertThat(output).contains("heads").doesNotContain("cannot be loaded");
    }

    private static byte[] library() throws IOException {
        try (InputStream in = OtherLibraryTest.class.getClassLoader().getResourceAsStream(LIBRARY)) {
            return in.readAllBytes();
        }
    }

    /** The library with another name of the version of its symbols, and the hash of this name. */
    private static byte[] renamed(byte[] library, String from, String to) {
        assertThat(to).isNotEqualTo(from).hasSameSizeAs(from);
        ByteBuffer elf = ByteBuffer.wrap(library).order(ByteOrder.LITTLE_ENDIAN);
        byte[] name = (from + '\0').getBytes(StandardCharsets.US_ASCII);
        int names = 0;
        int hashes = 0;
        for (int at = 8; at < library.length - name.length; at++) {
            if (library[at] == name[0] && elf.slice(at, name.length).equals(ByteBuffer.wrap(name))) {
                elf.put(at, to.getBytes(StandardCharsets.US_ASCII));
                names++;
            } else if (elf.getInt(at) == hash(from) && elf.getShort(at - 8) == 1) {
                elf.putInt(at, hash(to));
                hashes++;
            }
        }
        assertThat(names).isPositive();
        assertThat(hashes).isPositive();
        return library;
    }

    /** The hash of symbol names in the System V ABI. */
    private static int hash(String name) {
        int hash = 0;
        for (int i = 0; i < name.length(); i++) {
            hash = (hash << 4) + name.charAt(i);
            int high = hash & 0xf0000000;
            hash = (hash ^ high >>> 24) & ~high;
        }
        return hash;
    }

    private static String inspect(String option) throws IOException, InterruptedException {
        Process process = new ProcessBuilder(List.of(
                        ProcessHandle.current().info().command().orElseThrow(),
                        "-cp",
                        System.getProperty("java.class.path"),
                        "io.onnxprune.cli.Main",
                        "inspect",
                        TestModels.file("llama-gqa-d").toString(),
                        option))
                .redirectErrorStream(true)
                .start();
        String output = new String(process.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        assertThat(process.waitFor()).as(output).isZero();
        return output;
    }
}
