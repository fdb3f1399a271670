// SPDX-License-Identifier: Apache-2.0
package io.onnxprune;

import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.dims.Structure;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Stream;

/** The committed models and, where they are there, the larger collection beside the project. */
public final class TestModels {
    /** Many more exports; a checkout need not have them. */
    private static final Path COLLECTION = Path.of("..", "shared", "models");

    /** Exports of other kinds, with several models in a folder; a checkout need not have them either. */
    private static final Path CASES = Path.of("..", "shared", "cases");

    private static final Path FOLDER = Path.of("testmodels");
    private static final Map<String, Structure> STRUCTURES = new ConcurrentHashMap<>();

    private TestModels() {}

    /** The committed models. */
    public static List<String> names() {
        return folders(FOLDER);
    }

    /**
     * The committed models and those of the collection. Where that is absent its own name stands in for its models, and
     * {@link #file} skips the test.
     */
    public static List<String> allNames() {
        TreeSet<String> names = new TreeSet<>(names());
        names.addAll(Files.isDirectory(COLLECTION) ? folders(COLLECTION) : List.of(COLLECTION.toString()));
        return List.copyOf(names);
    }

    private static List<String> folders(Path parent) {
        try (Stream<Path> folders = Files.list(parent)) {
            return folders.filter(Files::isDirectory)
                    .map(folder -> folder.getFileName().toString())
                    .sorted()
                    .toList();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** The file of a model; the test is skipped if it is one of the collection, and that is not there. */
    public static Path file(String name) {
        Path committed = FOLDER.resolve(name).resolve("model.onnx");
        if (Files.exists(committed)) {
            return committed;
        }
        Path file = COLLECTION.resolve(name).resolve("model.onnx");
        assumeTrue(Files.exists(file), () -> file + " is not there");
        return file;
    }

    /** The models of all cases; where they are absent their folder stands in for them, and {@link #caseFile} skips the test. */
    public static List<String> cases() {
        if (!Files.isDirectory(CASES)) {
            return List.of(CASES.toString());
        }
        try (Stream<Path> files = Files.walk(CASES, 2)) {
            return files.filter(file -> file.toString().endsWith(".onnx"))
                    .map(file -> CASES.relativize(file).toString().replace(".onnx", ""))
                    .sorted()
                    .toList();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** A model of a case, such as {@code 07-gptoss-moe/model_b}; the test is skipped if it is not there. */
    public static Path caseFile(String name) {
        Path file = CASES.resolve(name + ".onnx");
        assumeTrue(Files.exists(file), () -> file + " is not there");
        return file;
    }

    /** Opened here, so that tests that only read files do without. */
    public static OnnxRuntime runtime() {
        return OnnxRuntime.open(RuntimeOptions.cpu());
    }

    /** The structure of a model, found once. */
    public static Structure structure(String name) {
        Path file = file(name);
        return STRUCTURES.computeIfAbsent(name, key -> structure(ModelReader.read(file)));
    }

    public static Structure structure(Model model) {
        Program program = Program.of(model);
        return Structure.of(DimensionAnalysis.of(program, Trace.of(program, runtime(), Log.NONE)));
    }
}
