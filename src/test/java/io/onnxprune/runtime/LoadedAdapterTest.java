// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** ONNX Runtime does not check the content of adapters; it ends the process. So it only gets those that were checked. */
@Tag("ort")
class LoadedAdapterTest {
    private static final Path INTACT = Path.of("src", "test", "resources", "flatbuffers", "parameters.onnx_adapter");

    @TempDir
    private Path folder;

    @Test
    void everyFlippedByteIsRefusedOrHarmless() throws IOException {
        OnnxRuntime.open(RuntimeOptions.cpu());
        byte[] intact = Files.readAllBytes(INTACT);
        int refused = 0;
        for (int at = 0; at < intact.length; at++) {
            for (int flip : new int[] {0xff, 0x80, 0x01, 0x10}) {
                byte[] damaged = intact.clone();
                damaged[at] ^= (byte) flip;
                refused += loads(damaged) ? 0 : 1;
            }
        }
        assertThat(refused).isGreaterThan(intact.length);
        assertThat(loads(intact)).isTrue();
    }

    @Test
    void everyTruncationIsRefused() throws IOException {
        OnnxRuntime.open(RuntimeOptions.cpu());
        byte[] intact = Files.readAllBytes(INTACT);
        for (int length = 0; length < intact.length - 8; length += 3) {
            assertThat(loads(Arrays.copyOf(intact, length))).as("of " + length).isFalse();
        }
    }

    private boolean loads(byte[] content) throws IOException {
        Path file = Files.write(folder.resolve("a.onnx_adapter"), content);
        try {
            LoadedAdapter.load(file).close();
            return true;
        } catch (UserException e) {
            assertThat(e).hasMessageContaining("a.onnx_adapter").hasMessageNotContaining("\n");
            return false;
        }
    }

    @Test
    void aFileOfAnotherKind() throws IOException {
        Path file = Files.writeString(folder.resolve("text"), "no adapter at all");

        assertThatThrownBy(() -> LoadedAdapter.load(file))
                .isInstanceOf(UserException.class)
                .hasMessage(
                        "%s is not an adapter of ONNX Runtime, or is damaged (it does not have the mark \"TORT\"); write"
                                + " it again with recover --keep-adapters, or download it again",
                        file);
    }
}
