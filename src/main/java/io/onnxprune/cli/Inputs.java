// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.emit.ModelFolder;
import java.io.IOException;
import java.io.InputStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.function.Predicate;

/** The input files of a command. No output option may overwrite them. */
final class Inputs {
    private final List<Path> files;

    private Inputs(List<Path> files) {
        this.files = files;
    }

    /** The files of options; null where an option was not given. */
    static Inputs of(Path... files) {
        return new Inputs(Arrays.stream(files).filter(Objects::nonNull).toList());
    }

    static Inputs of(ModelFolder model) {
        return of().with(model);
    }

    /** These files and those of further options; null where an option was not given. */
    Inputs with(Path... named) {
        List<Path> more = new ArrayList<>(files);
        more.addAll(of(named).files);
        return new Inputs(more);
    }

    /** These files and a model with its companion files. */
    Inputs with(ModelFolder model) {
        List<Path> more = new ArrayList<>(files);
        more.add(model.model());
        more.addAll(model.companions());
        return new Inputs(more);
    }

    /**
     * Checks that a JSON file can be written, before any work is done.
     *
     * @param option the option that names the file
     * @param file the file; null if the option was not given
     * @throws UserException if it cannot be written, or would overwrite an input or a file that is not JSON
     */
    void checkWritable(String option, Path file) {
        checkWritable(option, file, Inputs::isJson, "is not JSON");
    }

    /**
     * Checks that a file can be written, before any work is done.
     *
     * @param option the option that names the file
     * @param file the file; null if the option was not given
     * @param isKind whether an existing file may be replaced
     * @param otherwise description of a file that may not be replaced, to follow "a file that"
     * @throws UserException if it cannot be written, or would overwrite an input or a file of another kind
     */
    void checkWritable(String option, Path file, Predicate<Path> isKind, String otherwise) {
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
        if (files.stream().anyMatch(input -> isSame(input, file))) {
            throw new UserException(option + ' ' + file + " would overwrite an input; give another name");
        }
        if (Files.isRegularFile(file) && !isKind.test(file)) {
            throw new UserException(
                    option + ' ' + file + " would overwrite a file that " + otherwise + "; give another name");
        }
    }

    private static boolean isSame(Path input, Path file) {
        try {
            return Files.exists(input) && Files.exists(file) && Files.isSameFile(input, file);
        } catch (IOException e) {
            return false;
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
