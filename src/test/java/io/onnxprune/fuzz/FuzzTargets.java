// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.fuzz;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.onnxprune.TestModels;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.dims.Structure;
import io.onnxprune.dims.Trace;
import io.onnxprune.emit.ConfigReaders;
import io.onnxprune.eval.DataReaders;
import io.onnxprune.eval.TokenData;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphParser;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.TensorFile;
import io.onnxprune.onnx.FunctionInliner;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.option.Extensions;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PlanFile;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.RandomImportance;
import io.onnxprune.plan.Scores;
import io.onnxprune.recipe.Recipe;
import io.onnxprune.recover.CheckpointReaders;
import io.onnxprune.rewrite.Slicer;
import io.onnxprune.runtime.AdapterReaders;
import io.onnxprune.runtime.OnnxRuntime;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;

/** One target for each reader of files that come from elsewhere. */
final class FuzzTargets {
    private static final String MODEL = "llama-gqa-d";
    private static final Path BUFFERS = Path.of("src", "test", "resources", "flatbuffers");
    private static final String TOKENIZER = """
            {"version": "1.0", "truncation": null, "padding": null,
             "added_tokens": [{"id": 0, "content": "[UNK]", "single_word": false, "lstrip": false, "rstrip": false,
              "normalized": false, "special": true}],
             "normalizer": {"type": "Sequence", "normalizers": [{"type": "Lowercase"},
              {"type": "Replace", "pattern": {"Regex": "[0-9]{2,3}"}, "content": "9"}]},
             "pre_tokenizer": {"type": "Split", "pattern": {"Regex": "(?:a|b+)+|\\\\s+"}, "behavior": "Isolated",
              "invert": false},
             "post_processor": null, "decoder": {"type": "Fuse"},
             "model": {"type": "WordLevel", "vocab": {"[UNK]": 0, "a": 1, "b": 2, " ": 3}, "unk_token": "[UNK]"}}
            """;
    private static final String RECIPE = """
            version: 2
            name: mine
            description: "prunes in steps"
            passes:
              - {pass: calibrate}
              - repeat:
                  steps: 2
                  passes:
                    - pass: score
                      metric: magnitude
                    - {pass: allocate, ratio: 0.2, protect: [ffn.0, "heads.*"]}
                    - pass: rewrite
              - pass: emit
            """;

    private final Path folder;
    private final OnnxRuntime runtime = TestModels.runtime();
    private final Structure structure = TestModels.structure(MODEL);
    private final List<FuzzTarget> all = new ArrayList<>();

    private FuzzTargets(Path folder) {
        this.folder = folder;
    }

    static List<FuzzTarget> in(Path folder) throws IOException {
        FuzzTargets targets = new FuzzTargets(folder);
        targets.addModels();
        targets.addTensors();
        targets.addTexts();
        targets.addData();
        return targets.all;
    }

    private void add(String name, String fileName, byte[] intact, FuzzTarget.Reader reader) {
        all.add(FuzzTarget.of(name, folder, fileName, intact, reader));
    }

    /** A target whose file starts with the nodes of a graph, followed by its weights. */
    private void addGraph(String name, Model model, FuzzTarget.Reader reader) {
        byte[] intact = ModelWriter.skeleton(model, tensor -> false);
        int weights = model.graph().initializers().values().stream()
                .mapToInt(tensor ->
                        tensor.bytes() == null ? 0 : (int) tensor.bytes().size())
                .sum();
        all.add(FuzzTarget.of(name, folder, name + ".onnx", intact, reader).withHead(intact.length - weights));
    }

    private void addModels() throws IOException {
        Model functions = ModelReader.read(TestModels.file("llama-functions"));
        addGraph("functions", functions, file -> Program.of(FunctionInliner.inline(ModelReader.read(file))));
        addGraph("trace", functions, this::structure);
        addGraph("prune", ModelReader.read(TestModels.file(MODEL)), this::prune);
        Model small = GraphParser.parse("""
                ir_version 10
                opset "" 21
                main (float[batch,4] x, bool[] c) => (float[batch,4] y)
                  <float[4,300] weight = random(7)>
                  <float16[4] half = [1.0, 2.0, 3.0, 4.0]>
                {
                  a = MatMul (x, weight)
                  b = Transpose (weight)
                  d = MatMul (a, b)
                  e = Cast <to = 1> (half)
                  y = Add (d, e)
                }
                """);
        Path inline = folder.resolve("inline.onnx");
        ModelWriter.write(small, inline, false);
        add("model", "inline.onnx", Files.readAllBytes(inline), file -> readAll(ModelReader.read(file)));
        Path external = folder.resolve("external.onnx");
        ModelWriter.write(small, external, true);
        add("external", "external.onnx", Files.readAllBytes(external), file -> readAll(ModelReader.read(file)));
    }

    private void prune(Path file) {
        Structure found = structure(file);
        Budget budget = Budget.ofRatio(PruneSet.standard(), 0.3);
        Scores scores = new RandomImportance(0).score(found, Log.NONE);
        Plan plan = Allocation.of(found, scores, budget, "", Log.NONE).plan();
        ModelWriter.skeleton(Slicer.slice(found, plan.keep(found), Map.of()), tensor -> false);
    }

    private Structure structure(Path file) {
        Program program = Program.of(FunctionInliner.inline(ModelReader.read(file)));
        return Structure.of(DimensionAnalysis.of(program, Trace.of(program, runtime, Log.NONE)));
    }

    private static void readAll(Model model) {
        for (Tensor tensor : Program.of(FunctionInliner.inline(model))
                .model()
                .graph()
                .initializers()
                .values()) {
            if (tensor.bytes() != null) {
                tensor.bytes().toArray();
            }
        }
        ModelWriter.skeleton(model, tensor -> false);
    }

    private void addTensors() throws IOException {
        Path statistics = folder.resolve("statistics.safetensors");
        Tensor tensor = Tensor.ofFloats(DType.FLOAT, new long[] {2, 3}, 1, 2, 3, 4, 5, 6);
        Map<String, String> origin = Map.of(
                "format",
                "onnx-prune statistics",
                "version",
                "1",
                "model_sha256",
                "00ff",
                "rows",
                "2",
                "seq_len",
                "8",
                "fisher",
                "none");
        try (TensorFile file = TensorFile.named(statistics, Map.of("inputs/a", TensorFile.Form.of(tensor)), origin)) {
            file.write("inputs/a", tensor.bytes());
            file.complete();
        }
        add("statistics", "statistics.safetensors", Files.readAllBytes(statistics), file -> {
            Statistics.isFile(file);
            Statistics.origin(file);
        });
        add(
                "adapter",
                "a.onnx_adapter",
                Files.readAllBytes(BUFFERS.resolve("parameters.onnx_adapter")),
                AdapterReaders::adapter);
        add(
                "checkpoint",
                "a.checkpoint",
                Files.readAllBytes(BUFFERS.resolve("parameters.checkpoint")),
                CheckpointReaders::checkpoint);
    }

    private void addTexts() throws IOException {
        Plan plan = new Plan("00ff", Map.of("ffn.0", new int[] {1, 2, 5}), new int[] {0, 1}, null);
        add(
                "plan",
                "plan.json",
                PlanFile.text(plan, structure).getBytes(UTF_8),
                file -> PlanFile.read(file, structure, "00ff"));
        add("recipe", "recipe.yaml", RECIPE.getBytes(UTF_8), file -> Recipe.read(file, Extensions.BUILT_IN));
        byte[] config = Files.readAllBytes(TestModels.file(MODEL).resolveSibling("config.json"));
        add("config", "config.json", config, file -> {
            ConfigReaders.config(file, structure, plan);
            DataReaders.settings(file.resolveSibling("model.onnx"));
        });
    }

    private void addData() throws IOException {
        add("npy", "a.npy", numpy(), FuzzTargets::data);
        add(
                "jsonl",
                "a.jsonl",
                "{\"input_ids\": [1, 2, 3, 4]}\n{\"input_ids\": [5, 6]}\n"
                        .repeat(3)
                        .getBytes(UTF_8),
                FuzzTargets::data);
        Path tokenizer = folder.resolve("intact-tokenizer.json");
        Files.writeString(tokenizer, TOKENIZER);
        add(
                "tokenizer",
                "tokenizer.json",
                TOKENIZER.getBytes(UTF_8),
                file -> DataReaders.tokenizer(file, "aab abba 123 c"));
    }

    private static void data(Path file) {
        TokenData.read(file, Optional.empty(), OptionalInt.empty());
    }

    /** Two rows of three tokens, as numpy.save writes them. */
    private static byte[] numpy() {
        String header = "{'descr': '<i8', 'fortran_order': False, 'shape': (2, 3), }";
        header += " ".repeat(64 - (header.length() + 11) % 64) + "\n";
        ByteBuffer bytes = ByteBuffer.allocate(10 + header.length() + 48).order(ByteOrder.LITTLE_ENDIAN);
        bytes.put((byte) 0x93).put("NUMPY".getBytes(UTF_8)).put((byte) 1).put((byte) 0);
        bytes.putShort((short) header.length()).put(header.getBytes(UTF_8));
        for (long id = 1; id <= 6; id++) {
            bytes.putLong(id);
        }
        return bytes.array();
    }
}
