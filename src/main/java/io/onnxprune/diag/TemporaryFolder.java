// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** The folder for temporary files of the Java virtual machine. */
public final class TemporaryFolder {
    private TemporaryFolder() {}

    /**
     * Creates a folder in it that only the user may enter. It is deleted when the program ends.
     *
     * @throws UserException if it cannot be written to
     */
    public static Path create(String prefix) {
        try {
            return deleted(Files.createTempDirectory(prefix));
        } catch (IOException | IllegalArgumentException e) {
            throw unusable(e);
        }
    }

    /**
     * Creates a folder in another one, for large files. It is deleted when the program ends.
     *
     * @throws UserException if it cannot be written to
     */
    public static Path create(Path parent, String prefix) {
        try {
            Files.createDirectories(parent);
            return deleted(Files.createTempDirectory(parent, prefix));
        } catch (IOException e) {
            throw new UserException("folder " + parent + " cannot be written to: " + FileFailure.reason(e), e);
        }
    }

    private static Path deleted(Path folder) {
        Runtime.getRuntime().addShutdownHook(new Thread(() -> FileTree.delete(folder), "temporary-removal"));
        return folder;
    }

    /**
     * Checks that files can be made in it. ONNX Runtime makes one when it is loaded.
     *
     * @throws UserException if it cannot be written to
     */
    public static void require() {
        try {
            Files.delete(Files.createTempFile("onnx-prune", ".probe"));
        } catch (IOException | IllegalArgumentException e) {
            throw unusable(e);
        }
    }

    private static UserException unusable(Exception failure) {
        String reason = failure instanceof IOException io ? FileFailure.reason(io) : "it is not a path";
        return new UserException(
                "the temporary folder %s cannot be written to (%s); name another one with ONNX_PRUNE_JAVA_OPTS=-Djava.io.tmpdir=DIR"
                        .formatted(System.getProperty("java.io.tmpdir"), reason),
                failure);
    }
}
