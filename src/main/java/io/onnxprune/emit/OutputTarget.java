// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** The output: a model file, or a folder with a complete model to serve. */
public final class OutputTarget {
    private final Path model;
    private final boolean isFolder;

    private OutputTarget(Path model, boolean isFolder) {
        this.model = model;
        this.isFolder = isFolder;
    }

    /**
     * The target that {@code out} names: a file if the name ends in {@code .onnx}, else a folder, in which the model
     * keeps its name. Nothing is created.
     *
     * @throws UserException when the output cannot be written there or would overwrite the input
     */
    public static OutputTarget of(ModelFolder input, Path out) {
        boolean file = out.toString().toLowerCase(Locale.ROOT).endsWith(".onnx");
        if (file && Files.isDirectory(out)) {
            throw new UserException("output " + out + " is a folder, but its name ends in .onnx; give another name");
        }
        if (!file && Files.exists(out) && !Files.isDirectory(out)) {
            throw new UserException("output " + out
                    + " is a file where a folder would be written; end the name in .onnx to get one model file");
        }
        if (!file && isSame(out, input.folder())) {
            throw new UsageException("output " + out + " is the folder of the input; give another folder");
        }
        Path model = file ? out : out.resolve(input.model().getFileName());
        if (isSame(model, input.model())) {
            throw new UsageException("output " + model + " is the input itself; give another name");
        }
        OutputTarget target = new OutputTarget(model.toAbsolutePath(), !file);
        checkWritable(existing(target.folder()), out);
        return target;
    }

    /** The ONNX file to write, absolute. */
    public Path model() {
        return model;
    }

    /** The names of the files that a model may be written to: its own, and that of its external data. */
    List<String> fileNames() {
        String name = model.getFileName().toString();
        return List.of(name, name + ".data");
    }

    /** The name of a file of adapters beside the model. */
    public String adapterName(String extension) {
        String name = model.getFileName().toString();
        return name.substring(0, name.lastIndexOf('.')) + extension;
    }

    /**
     * The adapters of {@code input} that go beside the model, by their names there: all into a folder, and beside a model
     * file the one with the name of the input.
     */
    public Map<String, Path> adapters(ModelFolder input) {
        Map<String, Path> names = new LinkedHashMap<>();
        for (Path file : input.adapters()) {
            String name = file.getFileName().toString();
            if (isFolder) {
                names.put(name, file);
            } else if (input.hasNameOfModel(file)) {
                names.put(adapterName(name.substring(name.lastIndexOf('.'))), file);
            }
        }
        return names;
    }

    /** The folder of the model file; it may not exist yet. */
    public Path folder() {
        return model.getParent();
    }

    /** Whether the output is a folder with all files that are needed to serve the model. */
    public boolean isFolder() {
        return isFolder;
    }

    /** The nearest existing ancestor of {@code folder}, or {@code folder} itself. */
    static Path existing(Path folder) {
        Path found = folder.toAbsolutePath();
        while (found.getParent() != null && !Files.exists(found)) {
            found = found.getParent();
        }
        return found;
    }

    /** Checks by creating a file, because permission bits do not show read-only mounts, quotas or root. */
    private static void checkWritable(Path folder, Path out) {
        if (!Files.isDirectory(folder)) {
            throw new UserException("output " + out + " cannot be written: " + folder + " is not a folder");
        }
        try {
            Files.delete(Files.createTempFile(folder, ".onnx-prune", ".probe"));
        } catch (IOException e) {
            throw new UserException(
                    "output " + out + " cannot be written: folder " + folder + " is not writable; choose another place",
                    e);
        }
    }

    private static boolean isSame(Path first, Path second) {
        try {
            return Files.exists(first) && Files.isSameFile(first, second);
        } catch (IOException e) {
            throw new UserException("cannot read " + first + ": " + FileFailure.reason(e), e);
        }
    }
}
