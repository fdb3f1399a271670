// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Map;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Code is loaded only from a folder that nobody but the user can write to. */
class CacheFolderTest {
    private static final int NOBODY = 65534;

    @TempDir
    private Path home;

    @BeforeEach
    void unixOnly() {
        assumeTrue(home.getFileSystem().supportedFileAttributeViews().contains("unix"));
    }

    private CacheFolder choose(Map<String, String> environment) {
        return CacheFolder.choose(environment::get, Map.of("user.home", "?")::get);
    }

    private CacheFolder choose() {
        return choose(Map.of("XDG_CACHE_HOME", home.resolve("cache").toString()));
    }

    private static String mode(Path path) throws IOException {
        return PosixFilePermissions.toString(Files.getPosixFilePermissions(path));
    }

    private static void setMode(Path path, String mode) throws IOException {
        Files.setPosixFilePermissions(path, PosixFilePermissions.fromString(mode));
    }

    /** The folder is one of this run, private, and the warning says why. */
    private void assertTemporary(CacheFolder found, String reason) throws IOException {
        assertThat(found.chosen()).isDirectory().isEmptyDirectory();
        assertThat(found.chosen().startsWith(home.toRealPath())).isFalse();
        assertThat(mode(found.chosen())).isEqualTo("rwx------");
        assertThat(found.told().orElseThrow()).contains(reason).endsWith("set XDG_CACHE_HOME to a folder of your own");
    }

    @Test
    void aNewFolderIsPrivate() throws IOException {
        CacheFolder found = choose();

        assertThat(found.chosen()).isEqualTo(home.toRealPath().resolve("cache/onnx-prune"));
        assertThat(mode(found.chosen())).isEqualTo("rwx------");
        assertThat(found.told()).isEmpty();
        assertThat(found.chosen()).isEmptyDirectory();
    }

    @Test
    void aFolderThatOthersCanReadBecomesPrivate() throws IOException {
        Path folder = Files.createDirectories(home.resolve("cache/onnx-prune"));
        setMode(folder, "rwxr-xr-x");

        assertThat(choose().told()).isEmpty();
        assertThat(mode(folder)).isEqualTo("rwx------");
    }

    @Test
    void homeIsThatOfTheEnvironment() throws IOException {
        CacheFolder found = choose(Map.of("HOME", home.toString(), "XDG_CACHE_HOME", "relative"));

        assertThat(found.chosen()).isEqualTo(home.toRealPath().resolve(".cache/onnx-prune"));
        assertThat(Path.of("relative")).doesNotExist();
    }

    /** A user without an entry in the system has the home "?"; relative paths would lead into the working folder. */
    @ParameterizedTest
    @ValueSource(strings = {"", " ", "relative", "?", "./here", "\0"})
    void whatIsNoAbsolutePathDoesNotCount(String text) throws IOException {
        assertTemporary(choose(Map.of("HOME", text, "XDG_CACHE_HOME", text)), "there is no home folder");

        assertThat(Path.of("?")).doesNotExist();
    }

    @Test
    void linksAreNotFollowed() throws IOException {
        Path planted = Files.createDirectories(home.resolve("planted"));
        Files.createDirectories(home.resolve("cache"));
        Files.createSymbolicLink(home.resolve("cache/onnx-prune"), planted);

        assertTemporary(choose(), "it is not a folder");
    }

    @Test
    void aFolderThatOthersCanWriteToIsNotUsed() throws IOException {
        setMode(Files.createDirectories(home.resolve("cache/onnx-prune")), "rwxrwxrwx");

        assertTemporary(choose(), "others can write to it");
    }

    @Test
    void neitherIsOneThatOthersCanReplace() throws IOException {
        setMode(Files.createDirectories(home.resolve("cache")), "rwxrwxrwx");

        assertTemporary(choose(), "others can write to " + home.toRealPath().resolve("cache"));
    }

    @Test
    void aFolderOfAnotherUserIsNotUsed() throws IOException {
        Path folder = Files.createDirectories(home.resolve("cache/onnx-prune"));
        setMode(folder, "rwxr-xr-x");
        try {
            Files.setAttribute(folder, "unix:uid", NOBODY, LinkOption.NOFOLLOW_LINKS);
        } catch (IOException e) {
            assumeTrue(false, "only root can give folders away");
        }

        assertTemporary(choose(), "it belongs to another user");
    }

    @Test
    void aFileInItsPlaceIsSaid() throws IOException {
        Files.writeString(home.resolve("cache"), "");

        assertTemporary(choose(), "a file is in the place of its folder");
    }
}
