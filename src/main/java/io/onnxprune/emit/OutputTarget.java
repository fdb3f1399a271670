// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.onnx.ModelPlace;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * The output: a model file, or a folder with a complete model to serve. In a folder, the model lies where it lay in the folder of
 * the input, beside the other files or in a folder {@code onnx}.
 */
public final class OutputTarget {
    /** The name of the model card. */
    public static final String CARD = "README.md";

    private final Path model;
    private final Path home;
    private final boolean isFolder;
    private final Clients clients;

    private OutputTarget(Path model, Path home, boolean isFolder, Clients clients) {
        this.model = model;
        this.home = home;
        this.isFolder = isFolder;
        this.clients = clients;
    }

    /** The target that {@code out} names, for no client in particular. */
    public static OutputTarget of(ModelFolder input, Path out) {
        return of(input, out, Clients.ANY);
    }

    /**
     * The target that {@code out} names: a file if the name ends in {@code .onnx}, else a folder, in which the model
     * keeps its name and place, unless one of {@code clients} looks elsewhere. Nothing is created.
     *
     * @throws UserException when the output cannot be written there or would overwrite the input
     */
    public static OutputTarget of(ModelFolder input, Path out, Clients clients) {
        boolean file = out.toString().toLowerCase(Locale.ROOT).endsWith(".onnx");
        if (file && Files.isDirectory(out)) {
            throw new UserException("output " + out + " is a folder, but its name ends in .onnx; give another name");
        }
        if (!file && Files.exists(out) && !Files.isDirectory(out)) {
            throw new UserException("output " + out
                    + " is a file where a folder would be written; end the name in .onnx to get one model file");
        }
        if (!file && (isSame(out, input.folder()) || isSame(out, input.home()))) {
            throw new UsageException("output " + out + " is the folder of the input; give another folder");
        }
        Path model = file ? out : place(input, out, clients);
        if (isSame(model, input.model())) {
            throw new UsageException("output " + model + " is the input itself; give another name");
        }
        Path absolute = model.toAbsolutePath();
        Path home = file ? absolute.getParent() : out.toAbsolutePath();
        OutputTarget target = new OutputTarget(absolute, home, !file, clients);
        checkWritable(existing(target.folder()), out);
        return target;
    }

    /** Where the model goes in a folder. */
    private static Path place(ModelFolder input, Path out, Clients clients) {
        boolean forJs = clients.has(Client.TRANSFORMERS_JS);
        String name = input.model().getFileName().toString();
        Path folder = forJs || input.isInner() ? out.resolve(ModelPlace.INNER) : out;
        return folder.resolve(forJs ? TransformersJsConfig.fileName(name) : name);
    }

    /** The clients that a folder is written for. */
    Clients clients() {
        return clients;
    }

    /** The folder for the files that describe the model, absolute. */
    public Path home() {
        return home;
    }

    /** Whether the model goes into a folder {@code onnx} below the files that describe it. */
    boolean isInner() {
        return !home.equals(folder());
    }

    /** The file for external data. In a folder {@code onnx}, its name is the one that transformers.js looks for. */
    Path data() {
        return model.resolveSibling(model.getFileName() + (isInner() ? "_data" : ".data"));
    }

    /** The model file as seen from the files that describe it. */
    String modelName() {
        return home.relativize(model).toString().replace('\\', '/');
    }

    /** The model card of a folder. */
    public Path card() {
        return home.resolve(CARD);
    }

    /** The ONNX file to write, absolute. */
    public Path model() {
        return model;
    }

    /** The names of the files that a model may be written to: its own, and that of its external data. */
    List<String> fileNames() {
        return List.of(model.getFileName().toString(), data().getFileName().toString());
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
