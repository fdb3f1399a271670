// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.net.URL;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A library that is loaded has the content that the jar has. */
class UnpackedFilesTest {
    private static final String NAME = "lib x.so";

    @TempDir
    private Path root;

    private Path folder;
    private Path file;
    private URL source;

    @BeforeEach
    void unpack() throws IOException {
        folder = root.resolve("cache");
        file = folder.resolve(NAME);
        source = Files.writeString(root.resolve("source"), "good").toUri().toURL();
        UnpackedFiles.in(folder).provide(NAME, source);
        assertThat(file).hasContent("good");
    }

    private void provide() throws IOException {
        UnpackedFiles.in(folder).provide(NAME, source);
        assertThat(file).hasContent("good");
        assertThat(Files.isSymbolicLink(file)).isFalse();
    }

    @Test
    void whatIsUnchangedStays() throws IOException {
        FileTime time = Files.getLastModifiedTime(file);
        Files.writeString(root.resolve("source"), "evil");
        provide();

        assertThat(Files.getLastModifiedTime(file)).isEqualTo(time);
    }

    @Test
    void anotherContentOfTheSameSizeIsReplaced() throws IOException {
        Files.writeString(file, "evil");
        provide();
    }

    @Test
    void anotherTimeAloneIsNoOtherContent() throws IOException {
        Files.setLastModifiedTime(file, FileTime.fromMillis(1));
        Files.writeString(root.resolve("source"), "evil");
        provide();
        provide();

        assertThat(Files.getLastModifiedTime(file)).isEqualTo(FileTime.fromMillis(1));
    }

    @Test
    void linksAndMissingFilesAreReplaced() throws IOException {
        Path evil = Files.writeString(root.resolve("evil"), "evil");
        Files.delete(file);
        provide();
        Files.delete(file);
        Files.createSymbolicLink(file, evil);
        provide();

        assertThat(evil).hasContent("evil");
    }

    @Test
    void withoutAListEverythingIsUnpackedAgain() throws IOException {
        Files.writeString(file, "evil");
        for (String list : new String[] {"", "garbage", "a b c d", "0 99999999999999999999 x " + NAME}) {
            Files.writeString(folder.resolve("sha256"), list);
            provide();
        }
    }
}
