// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.assertj.core.api.AbstractThrowableAssert;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

@Tag("ort")
class OutputTargetTest {
    @TempDir
    private Path root;

    private Path folder;
    private ModelFolder input;

    @BeforeEach
    void makeInput() throws IOException {
        folder = Files.createDirectory(root.resolve("in"));
        Files.writeString(folder.resolve("model.onnx"), "x");
        input = ModelFolder.of(folder);
    }

    private AbstractThrowableAssert<?, ?> assertRejected(Path out) {
        return assertThatThrownBy(() -> OutputTarget.of(input, out)).isInstanceOf(UserException.class);
    }

    @Test
    void filesAndFoldersAreDistinguished() throws IOException {
        OutputTarget file = OutputTarget.of(input, root.resolve("a/small.onnx"));
        assertThat(file.isFolder()).isFalse();
        assertThat(file.model()).isEqualTo(root.resolve("a/small.onnx"));

        OutputTarget toFolder = OutputTarget.of(input, root.resolve("b"));
        assertThat(toFolder.isFolder()).isTrue();
        assertThat(toFolder.model()).isEqualTo(root.resolve("b/model.onnx"));

        assertThat(OutputTarget.of(input, folder.resolve("small.onnx")).folder())
                .isEqualTo(folder);
        assertThat(Fixture.names(root)).containsExactly("in");
        assertThat(Fixture.names(folder)).containsExactly("model.onnx");
    }

    @Test
    void aHubsFolderKeepsItsLayout() throws IOException {
        Path hub = Files.createDirectories(root.resolve("hub/onnx")).getParent();
        Files.writeString(hub.resolve("config.json"), "{}");
        Files.writeString(hub.resolve("onnx/model_q4.onnx"), "x");
        ModelFolder named = ModelFolder.of(hub);
        OutputTarget target = OutputTarget.of(named, root.resolve("out"));

        assertThat(target.model()).isEqualTo(root.resolve("out/onnx/model_q4.onnx"));
        assertThat(target.home()).isEqualTo(root.resolve("out"));
        assertThat(target.data()).hasFileName("model_q4.onnx_data");
        assertThat(OutputTarget.of(named, root.resolve("small.onnx")).data()).hasFileName("small.onnx.data");
        assertThatThrownBy(() -> OutputTarget.of(named, hub)).hasMessageContaining("is the folder of the input");
        assertThatThrownBy(() -> OutputTarget.of(named, hub.resolve("onnx")))
                .hasMessageContaining("is the folder of the input");
    }

    @Test
    void aClientFindsItsModel() throws IOException {
        Files.move(folder.resolve("model.onnx"), folder.resolve("odd.onnx"));
        ModelFolder odd = ModelFolder.of(folder);
        Path out = root.resolve("out");

        assertThat(OutputTarget.of(odd, out, Clients.parse("ort,optimum")).model())
                .isEqualTo(out.resolve("odd.onnx"));
        assertThat(OutputTarget.of(odd, out, Clients.parse("transformers.js")).model())
                .isEqualTo(out.resolve("onnx/model.onnx"));
    }

    @Test
    void theInputIsNotOverwritten() throws IOException {
        assertRejected(folder.resolve("model.onnx")).hasMessageContaining("is the input itself");
        assertRejected(folder.resolve("../in/model.onnx")).hasMessageContaining("is the input itself");
        assertRejected(folder).hasMessageContaining("is the folder of the input");

        Path link = Files.createSymbolicLink(root.resolve("link.onnx"), folder.resolve("model.onnx"));
        assertRejected(link).hasMessageContaining("is the input itself");
        Path folderLink = Files.createSymbolicLink(root.resolve("link"), folder);
        assertRejected(folderLink).hasMessageContaining("is the folder of the input");
        assertRejected(folderLink.resolve("model.onnx")).hasMessageContaining("is the input itself");

        Path other = Files.createDirectory(root.resolve("other"));
        Files.createSymbolicLink(other.resolve("model.onnx"), folder.resolve("model.onnx"));
        assertRejected(other).hasMessageContaining("is the input itself");
    }

    @Test
    void kindsThatDoNotFit() throws IOException {
        assertRejected(Files.createDirectory(root.resolve("dir.onnx"))).hasMessageContaining("is a folder");
        Path file = Files.writeString(root.resolve("file"), "x");
        assertRejected(file).hasMessageContaining("is a file");
        assertRejected(file.resolve("small.onnx")).hasMessageContaining("is not a folder");
    }

    @Test
    void placesThatCannotBeWritten() {
        assertRejected(Path.of("/proc/small.onnx")).hasMessageContaining("/proc is not writable");
        assertRejected(Path.of("/proc/a/b")).hasMessageContaining("/proc is not writable");
    }
}
