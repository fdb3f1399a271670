package io.onnxprune.plan;

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
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Stream;

/** The structures of the committed models, each found once. */
final class TestModels {
    private static final Path FOLDER = Path.of("testmodels");
    private static final Map<String, Structure> STRUCTURES = new ConcurrentHashMap<>();
    private static final OnnxRuntime RUNTIME = OnnxRuntime.open(RuntimeOptions.cpu());

    private TestModels() {}

    static List<String> names() {
        try (Stream<Path> folders = Files.list(FOLDER)) {
            return folders.filter(Files::isDirectory)
                    .map(folder -> folder.getFileName().toString())
                    .sorted()
                    .toList();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    static Path file(String name) {
        return FOLDER.resolve(name).resolve("model.onnx");
    }

    static Structure structure(String name) {
        return STRUCTURES.computeIfAbsent(name, key -> structure(ModelReader.read(file(key))));
    }

    static Structure structure(Model model) {
        Program program = Program.of(model);
        return Structure.of(DimensionAnalysis.of(program, Trace.of(program, RUNTIME, Log.NONE)));
    }
}
