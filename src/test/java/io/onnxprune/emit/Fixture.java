// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.dims.Structure;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.BlockRemover;
import io.onnxprune.rewrite.Slicer;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** The structures of test models, plans for them, and the emitter's messages and files. */
final class Fixture {
    private static final OnnxRuntime RUNTIME = OnnxRuntime.open(RuntimeOptions.cpu());
    private static final Map<String, Structure> STRUCTURES = new TreeMap<>();

    private Fixture() {}

    static Path folder(String name) {
        return Path.of("testmodels", name);
    }

    static Structure structure(String name) {
        return STRUCTURES.computeIfAbsent(name, key -> {
            Program program = Program.of(ModelReader.read(folder(key).resolve("model.onnx")));
            return Structure.of(DimensionAnalysis.of(program, Trace.of(program, RUNTIME, Log.NONE)));
        });
    }

    /** A plan from texts like {@code ffn.0=72}: keeps the first 72. */
    static Plan plan(String... kept) {
        Map<String, int[]> keep = new LinkedHashMap<>();
        for (String text : kept) {
            String[] parts = text.split("=");
            keep.put(parts[0], IntStream.range(0, Integer.parseInt(parts[1])).toArray());
        }
        return new Plan("", keep, null, null);
    }

    static Plan keepLayers(int... layers) {
        return new Plan("", Map.of(), layers, null);
    }

    static Plan keepBlocks(int... blocks) {
        return new Plan("", Map.of(), null, blocks);
    }

    static Model prune(Structure structure, Plan plan) {
        return BlockRemover.remove(structure, plan, Slicer.slice(structure, plan.keep(structure), Map.of()));
    }

    static Emitter.Emission emit(String name, Plan plan, Path out, Log log) {
        return emit(name, plan, ModelFolder.of(folder(name)), out, log);
    }

    static Emitter.Emission emit(String name, Plan plan, ModelFolder input, Path out, Log log) {
        Structure structure = structure(name);
        return emit(
                new Emitter.Request(prune(structure, plan), structure, plan, input, OutputTarget.of(input, out), false),
                log);
    }

    static Emitter.Emission emit(Emitter.Request request, Log log) {
        try (Emitter.Staged staged = Emitter.stage(request, Map.of(), log)) {
            return staged.commit();
        }
    }

    static JsonNode json(Path file) throws IOException {
        return new ObjectMapper().readTree(Files.readString(file));
    }

    /** A configuration with the given JSON text, as an object that can be patched. */
    static JsonFile config(Path folder, String json) throws IOException {
        Path file = folder.resolve("patched.json");
        Files.writeString(file, json);
        return JsonFile.read(file).orElseThrow();
    }

    static List<String> names(Path folder) throws IOException {
        try (Stream<Path> files = Files.list(folder)) {
            return files.map(file -> file.getFileName().toString()).sorted().toList();
        }
    }

    static void open(Path model) {
        RUNTIME.open(model, false).close();
    }
}
