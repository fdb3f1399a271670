// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import io.onnxprune.diag.FileTree;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.WholeFile;
import io.onnxprune.onnx.ModelReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Optional;
import java.util.function.Predicate;

/**
 * The files that a run reads and writes, by the options that name them. This is the one place for the rule that no result and no
 * input is lost: all files that are written are distinct, and none of them is read. Paths are compared as the places that they lead
 * to, through links and {@code ..}, and existing files also as such, for a file may have two names.
 *
 * <p>A folder that is written to counts with the names of its files. Folders of results do not contain one another, and the work
 * folder is in none of them.
 */
public final class RunFiles {
    private final List<Path> inputs = new ArrayList<>();
    private final List<Path> models = new ArrayList<>();
    private final List<Output> outputs = new ArrayList<>();

    private enum Kind {
        FILE,
        RESULTS,
        WORK
    }

    /**
     * Something that is written.
     *
     * @param option the option that names it, with its value
     * @param path the file or folder
     * @param place what {@code path} leads to
     * @param names whether a file of this name may be written into the folder
     */
    private record Output(String option, Path path, Path place, Kind kind, Predicate<String> names) {
        boolean isFolder() {
            return kind != Kind.FILE;
        }

        /** Whether a file would be written, or is part of what is written. */
        boolean writes(Path file, Path itsPlace) {
            if (isFolder()) {
                return place.equals(itsPlace)
                        || place.equals(itsPlace.getParent())
                                && names.test(itsPlace.getFileName().toString());
            }
            return place.equals(itsPlace) || isSame(path, file);
        }
    }

    /** Adds files that are read. */
    public RunFiles reads(Collection<Path> files) {
        inputs.addAll(files);
        return this;
    }

    /** Adds a file that is read; empty for none. */
    public RunFiles reads(Optional<Path> file) {
        file.ifPresent(inputs::add);
        return this;
    }

    /** Adds a model that is read, with its external data and the files beside it that belong to it. */
    public RunFiles reads(ModelFolder model) {
        inputs.add(model.model());
        inputs.addAll(model.companions());
        models.add(model.model());
        return this;
    }

    /** Adds all files of another part of the run. */
    public RunFiles with(RunFiles other) {
        inputs.addAll(other.inputs);
        models.addAll(other.models);
        outputs.addAll(other.outputs);
        return this;
    }

    /** The files that are read. External data of models is not among them. */
    public List<Path> inputs() {
        return List.copyOf(inputs);
    }

    /** Adds a file that is written. */
    public RunFiles writes(String option, Path file) {
        outputs.add(output(option + ' ' + file, file, Kind.FILE, name -> true));
        return this;
    }

    /** Adds a folder of results. {@code names} are those of the files that may be written into it. */
    public RunFiles writesInto(String option, Path folder, Predicate<String> names) {
        outputs.add(output(option + ' ' + folder, folder, Kind.RESULTS, names));
        return this;
    }

    /** Adds a folder for files whose names are no others'. */
    public RunFiles worksIn(String option, Path folder) {
        outputs.add(output(option + ' ' + folder, folder, Kind.WORK, name -> false));
        return this;
    }

    /** Adds the output of {@code -o}: its model, and in a folder also the files that are copied from beside the input. */
    public RunFiles writes(OutputTarget target, ModelFolder input) {
        if (!target.isFolder()) {
            target.fileNames().forEach(name -> writes("-o", target.folder().resolve(name)));
            return this;
        }
        String option = "-o " + target.home();
        List<String> names = new ArrayList<>(List.of(OutputTarget.CARD));
        input.companions().forEach(file -> names.add(file.getFileName().toString()));
        List<String> models = target.fileNames();
        if (target.folder().equals(target.home())) {
            names.addAll(models);
        } else {
            outputs.add(output(option, target.folder(), Kind.RESULTS, models::contains));
        }
        outputs.add(output(option, target.home(), Kind.RESULTS, names::contains));
        return this;
    }

    private static Output output(String option, Path path, Kind kind, Predicate<String> names) {
        return new Output(option, path, FileTree.place(path), kind, names);
    }

    /**
     * Checks the rule.
     *
     * @throws UsageException if a file or folder is named twice, or an input would be overwritten
     */
    public void check() {
        for (int i = 0; i < outputs.size(); i++) {
            for (int j = i + 1; j < outputs.size(); j++) {
                check(outputs.get(i), outputs.get(j));
            }
        }
        inputs.forEach(this::checkInput);
        // Only a file that exists can be one with external data, so the model is seldom read for this.
        boolean replaces = outputs.stream().anyMatch(output -> output.isFolder() || Files.exists(output.path));
        for (Path model : replaces ? models : List.<Path>of()) {
            ModelFolder.weightFiles(ModelReader.read(model).graph()).forEach(this::checkInput);
        }
    }

    private void checkInput(Path input) {
        Path place = FileTree.place(input);
        for (Output output : outputs) {
            if (!WholeFile.isDevice(output.path) && output.writes(input, place)) {
                throw new UsageException(output.option + " would overwrite an input, " + input + "; give another name");
            }
        }
    }

    private static void check(Output one, Output other) {
        if (WholeFile.isDevice(one.path) || one.option.equals(other.option)) {
            return;
        }
        if (one.place.equals(other.place) || !one.isFolder() && !other.isFolder() && isSame(one.path, other.path)) {
            throw new UsageException(one.option + " and " + other.option + " are one "
                    + (one.isFolder() ? "folder" : "file") + "; give each a name of its own");
        }
        if (one.isFolder() && !other.isFolder() && one.writes(other.path, other.place)
                || other.isFolder() && !one.isFolder() && other.writes(one.path, one.place)) {
            throw new UsageException(one.option + " and " + other.option
                    + " would write a file of the same name; give each a name of its own");
        }
        if (contains(one, other) || contains(other, one)) {
            Output inner = contains(one, other) ? other : one;
            Output outer = contains(one, other) ? one : other;
            throw new UsageException(inner.option + " lies in " + outer.option + "; give a place outside it");
        }
    }

    /** Whether one is, or would be, a folder around the other that may not be one. */
    private static boolean contains(Output one, Output other) {
        boolean inside = !one.place.equals(other.place) && other.place.startsWith(one.place);
        boolean isFile = one.kind == Kind.FILE && !Files.isDirectory(one.path);
        return inside && (isFile || one.kind == Kind.RESULTS && other.isFolder());
    }

    private static boolean isSame(Path one, Path other) {
        try {
            return Files.exists(one) && Files.exists(other) && Files.isSameFile(one, other);
        } catch (IOException e) {
            return false;
        }
    }
}
