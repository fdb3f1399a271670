// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermission;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Files appear whole, under names that cannot be guessed, and links are not followed. */
class WholeFileTest {
    @TempDir
    private Path folder;

    @Test
    void namesCannotBeGuessed() throws IOException {
        Path target = folder.resolve("plan.json");

        assertThat(WholeFile.unpredictable(target))
                .isNotEqualTo(WholeFile.unpredictable(target))
                .hasParentRaw(folder);
        // Names of 255 bytes are the longest.
        for (String letter : new String[] {"x", "ü", "😀"}) {
            Path longest = folder.resolve(letter.repeat(255 / letter.getBytes(UTF_8).length));
            WholeFile.write(longest, new byte[1]);
            assertThat(longest).hasSize(1);
        }
    }

    @Test
    void theModeIsThatOfANewFile() throws IOException {
        Path usual = Files.createFile(folder.resolve("usual"));
        Path target = folder.resolve("plan.json");
        WholeFile.write(target, new byte[1]);

        assertThat(Files.getPosixFilePermissions(target)).isEqualTo(Files.getPosixFilePermissions(usual));
        assertThat(Files.getPosixFilePermissions(target)).contains(PosixFilePermission.OWNER_READ);
    }

    @Test
    void aLinkIsReplaced() throws IOException {
        Path other = Files.writeString(folder.resolve("other"), "old");
        Path link = Files.createSymbolicLink(folder.resolve("link"), other);
        WholeFile.write(link, "new".getBytes(UTF_8));

        assertThat(other).hasContent("old");
        assertThat(link).hasContent("new").isRegularFile();
    }

    @Test
    void whatIsNotCompleteLeavesNothing() throws IOException {
        Path target = Files.writeString(folder.resolve("target"), "old");
        try (WholeFile file = WholeFile.create(target)) {
            file.channel().write(ByteBuffer.wrap(new byte[5]));
            try (var inside = Files.list(folder)) {
                assertThat(inside).hasSize(2);
            }
        }

        assertThat(target).hasContent("old");
        assertThat(folder.toFile().list()).containsExactly("target");
    }

    @Test
    void devicesAreWrittenTo() throws IOException {
        WholeFile.write(Path.of("/dev/null"), new byte[5]);

        assertThat(Files.isRegularFile(Path.of("/dev/null"))).isFalse();
        assertThatThrownBy(() -> WholeFile.write(Path.of("/dev/full"), new byte[5]))
                .isInstanceOf(IOException.class);
    }

    @Test
    void placesOfPathsThatDoNotExist() throws IOException {
        Path real = Files.createDirectories(folder.toRealPath().resolve("a/b"));
        Path link = Files.createSymbolicLink(folder.resolve("link"), real);
        Files.createSymbolicLink(folder.resolve("dangling"), Path.of("a/b/none"));
        Files.createSymbolicLink(folder.resolve("circle"), Path.of("circle"));

        assertThat(FileTree.place(link.resolve("../c/x")))
                .isEqualTo(folder.toRealPath().resolve("a/c/x"));
        assertThat(FileTree.place(link.resolve("new/../x"))).isEqualTo(real.resolve("x"));
        assertThat(FileTree.place(folder.resolve("dangling"))).isEqualTo(real.resolve("none"));
        assertThat(FileTree.place(folder.resolve("circle"))).isNotNull();
        assertThat(FileTree.place(Path.of("none/./x")))
                .isEqualTo(Path.of("none/x").toAbsolutePath());
    }
}
