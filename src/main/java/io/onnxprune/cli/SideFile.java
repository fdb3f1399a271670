// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.function.Predicate;

/** A file that an option names for a result beside the model. */
final class SideFile {
    private SideFile() {}

    /**
     * Checks that a JSON file can be written, before any work is done.
     *
     * @param option the option that names the file
     * @param file the file; null if the option was not given
     * @throws UserException if it cannot be written, or would overwrite a file that is not JSON
     */
    static void check(String option, Path file) {
        check(option, file, SideFile::isJson, "is not JSON");
    }

    /**
     * Checks that a file can be written, before any work is done.
     *
     * @param option the option that names the file
     * @param file the file; null if the option was not given
     * @param isKind whether an existing file may be replaced
     * @param otherwise description of a file that may not be replaced, to follow "a file that"
     * @throws UserException if it cannot be written, or would overwrite a file of another kind
     */
    static void check(String option, Path file, Predicate<Path> isKind, String otherwise) {
        if (file == null) {
            return;
        }
        Path folder = file.toAbsolutePath().getParent();
        if (Files.isDirectory(file)) {
            throw new UserException(option + ' ' + file + " is a folder; name a file");
        }
        if (folder == null || !Files.isDirectory(folder)) {
            throw new UserException(option + ' ' + file + " cannot be written: there is no folder " + folder);
        }
        if (!Files.isWritable(Files.exists(file) ? file : folder)) {
            throw new UserException(option + ' ' + file + " cannot be written: permission denied");
        }
        if (Files.isRegularFile(file) && !isKind.test(file)) {
            throw new UserException(
                    option + ' ' + file + " would overwrite a file that " + otherwise + "; give another name");
        }
    }

    private static boolean isJson(Path file) {
        try (InputStream content = Files.newInputStream(file)) {
            int first = content.read();
            return first < 0 || first == '{';
        } catch (IOException e) {
            throw new UserException("cannot read " + file + ": " + FileFailure.reason(e), e);
        }
    }
}
