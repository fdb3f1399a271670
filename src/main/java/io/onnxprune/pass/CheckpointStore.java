// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.onnxprune.diag.Claim;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.CheckpointFile;
import io.onnxprune.ir.CheckpointFile.Content;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PlanFile;
import io.onnxprune.plan.Scores;
import io.onnxprune.rewrite.PrunedState;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.DoubleBuffer;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * Checkpoints of a run between its passes. A small file says how far the run is: the plan, scores, report, and the name of a second
 * file with the weights that changed. The second one is written only when weights change. Each file is replaced as a whole, so a
 * stop at any time leaves the checkpoint before or the one after.
 */
final class CheckpointStore implements AutoCloseable {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String CHOICE = "choice/";
    private static final String UNITS = "scores/units/";
    private static final String LAYERS = "scores/layers";
    private static final String BLOCKS = "scores/blocks";

    private final Path folder;
    private final Claim claim;
    private final String name;
    /** Weights of the last checkpoint; empty before the first one. */
    private Optional<Map<Value, Tensor>> savedWeights = Optional.empty();

    /** The number of the file with these weights. */
    private int generation;

    /**
     * How far a run is.
     *
     * @param done how many passes of its schedule are done
     * @param state after the last of them
     */
    record Saved(int done, PruningState state) {}

    /**
     * The checkpoints of one run.
     *
     * @param folder the work folder
     * @param key tells this run from others: a sum of everything that its result depends on
     * @param resumes whether the run is to go on from a checkpoint
     */
    CheckpointStore(Path folder, String key, boolean resumes) {
        this.folder = folder;
        this.claim =
                Claim.of(folder, "run", key, named -> !resumes || file(named).exists());
        this.name = claim.name();
    }

    /** Whether an equal run goes on at this time. */
    boolean isBesideAnother() {
        return !claim.isFirst();
    }

    @Override
    public void close() {
        claim.close();
    }

    /** Whether there is a checkpoint. */
    boolean exists() {
        return file().exists();
    }

    private CheckpointFile file() {
        return file(name);
    }

    private CheckpointFile file(String named) {
        return new CheckpointFile(folder.resolve(named + ".safetensors"));
    }

    private CheckpointFile weights(int number) {
        return new CheckpointFile(folder.resolve(name + "-weights-" + number + ".safetensors"));
    }

    /** The checkpoint of a pass that saves how far it is within itself. */
    CheckpointFile within(int pass) {
        return new CheckpointFile(folder.resolve(name + "-pass-" + pass + ".safetensors"));
    }

    /** Constants of the dense model by a name that no other has: branches of an If may use one name for different constants. */
    private static Map<String, Value> constants(DenseModel dense) {
        Program program = dense.structure().analysis().program();
        Map<String, Value> constants = new LinkedHashMap<>();
        Map<Value, String> known = new HashMap<>();
        program.initializers().values().forEach(value -> name(value, constants, known));
        for (Op op : program.ops()) {
            op.inputs().stream()
                    .filter(value -> value != null && value.constant() != null)
                    .forEach(value -> name(value, constants, known));
        }
        return constants;
    }

    private static void name(Value value, Map<String, Value> constants, Map<Value, String> known) {
        if (!known.containsKey(value)) {
            String name = value.name();
            for (int count = 2; constants.containsKey(name); count++) {
                name = value.name() + '#' + count;
            }
            constants.put(name, value);
            known.put(value, name);
        }
    }

    /**
     * Saves how far the run is.
     *
     * @throws UserException if that cannot be written
     */
    void save(Saved saved) {
        PruningState state = saved.state;
        Map<String, Value> constants = constants(state.dense());
        int before = generation;
        Map<Value, Tensor> updates = state.pruned().updates();
        if (savedWeights.filter(known -> known == updates).isEmpty()) {
            generation++;
            weights(generation).save(new Content(Map.of(), tensors(updates, constants, "")));
            savedWeights = Optional.of(updates);
        }
        file().save(new Content(about(saved), small(state, constants)));
        if (before != generation) {
            weights(before).remove();
        }
        within(saved.done - 1).remove();
    }

    private Map<String, String> about(Saved saved) {
        PruningState state = saved.state;
        Map<String, String> about = new LinkedHashMap<>();
        about.put("format", "onnx-prune checkpoint");
        about.put("done", Integer.toString(saved.done));
        about.put("weights", Integer.toString(generation));
        about.put("plan", PlanFile.text(state.pruned().plan(), state.dense().structure()));
        state.choice()
                .ifPresent(choice -> about.put(
                        "choice", PlanFile.text(choice.plan(), state.dense().structure())));
        about.put("report", text(List.copyOf(state.report().values())));
        return about;
    }

    /** Scores, and the weights that follow from a choice. */
    private static Map<String, Tensor> small(PruningState state, Map<String, Value> constants) {
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        state.choice().ifPresent(choice -> {
            Map<Value, Tensor> own = new HashMap<>(choice.updates());
            own.entrySet().removeIf(entry -> state.pruned().updates().get(entry.getKey()) == entry.getValue());
            tensors.putAll(tensors(own, constants, CHOICE));
        });
        state.scores().ifPresent(scores -> {
            scores.units().forEach((dimension, units) -> tensors.put(UNITS + dimension, tensor(units)));
            tensors.put(LAYERS, tensor(scores.layers()));
            tensors.put(BLOCKS, tensor(scores.blocks()));
        });
        return tensors;
    }

    private static Map<String, Tensor> tensors(
            Map<Value, Tensor> updates, Map<String, Value> constants, String prefix) {
        Map<String, Tensor> named = new LinkedHashMap<>();
        constants.forEach((name, value) -> {
            if (updates.containsKey(value)) {
                named.put(prefix + name, updates.get(value));
            }
        });
        if (named.size() != updates.size()) {
            throw new IllegalArgumentException("new weights of a value that is no constant of the model");
        }
        return named;
    }

    private static Tensor tensor(double[] values) {
        ByteBuffer bytes = ByteBuffer.allocate(Double.BYTES * values.length).order(ByteOrder.LITTLE_ENDIAN);
        bytes.asDoubleBuffer().put(values);
        return Tensor.of(DType.DOUBLE, new long[] {values.length}, Bytes.of(bytes));
    }

    private static double[] doubles(Tensor tensor) {
        ByteBuffer bytes = tensor.bytes().direct().order(ByteOrder.LITTLE_ENDIAN);
        DoubleBuffer values = bytes.asDoubleBuffer();
        double[] read = new double[values.remaining()];
        values.get(read);
        return read;
    }

    private static String text(List<ReportEntry> report) {
        try {
            return JSON.writeValueAsString(report);
        } catch (JsonProcessingException e) {
            throw new IllegalStateException("a report is plain data", e);
        }
    }

    /**
     * How far the run came that was stopped. Weights are mapped from their file.
     *
     * @param start the state that passes which are repeated on resumption have come to
     * @throws UserException if a file is damaged
     */
    Saved load(PruningState start) {
        return file().load(small -> loaded(start, small)).orElseThrow();
    }

    private Saved loaded(PruningState start, Content small) {
        DenseModel dense = start.dense();
        Map<String, Value> constants = constants(dense);
        generation = Integer.parseInt(entry(small, "weights"));
        Map<Value, Tensor> updates = new HashMap<>();
        weights(generation)
                .load(Content::tensors)
                .orElseThrow(() -> new IllegalArgumentException("its weights are missing"))
                .forEach((constant, tensor) -> updates.put(constants.get(constant), tensor));
        PrunedState pruned = PrunedState.of(dense.structure(), plan(entry(small, "plan"), dense), updates);
        savedWeights = Optional.of(pruned.updates());
        PruningState state = new PruningState(
                dense,
                pruned,
                choice(small, pruned, dense, constants),
                scores(small.tensors()),
                report(entry(small, "report")),
                start.output());
        return new Saved(Integer.parseInt(entry(small, "done")), state);
    }

    private static String entry(Content small, String key) {
        return Optional.ofNullable(small.values().get(key))
                .orElseThrow(() -> new IllegalArgumentException("its " + key + " is missing"));
    }

    private Plan plan(String text, DenseModel dense) {
        return PlanFile.ofText(text, folder.resolve(name), dense.structure(), dense.hash());
    }

    private Optional<PrunedState> choice(
            Content small, PrunedState pruned, DenseModel dense, Map<String, Value> constants) {
        String text = small.values().get("choice");
        if (text == null) {
            return Optional.empty();
        }
        Map<Value, Tensor> updates = new HashMap<>(pruned.updates());
        small.tensors().forEach((entry, tensor) -> {
            if (entry.startsWith(CHOICE)) {
                updates.put(constants.get(entry.substring(CHOICE.length())), tensor);
            }
        });
        return Optional.of(PrunedState.of(dense.structure(), plan(text, dense), updates));
    }

    private static Optional<Scores> scores(Map<String, Tensor> tensors) {
        Tensor layers = tensors.get(LAYERS);
        if (layers == null) {
            return Optional.empty();
        }
        Tensor blocks = Optional.ofNullable(tensors.get(BLOCKS))
                .orElseThrow(() -> new IllegalArgumentException("its scores of blocks are missing"));
        Map<String, double[]> units = new LinkedHashMap<>();
        tensors.forEach((entry, tensor) -> {
            if (entry.startsWith(UNITS)) {
                units.put(entry.substring(UNITS.length()), doubles(tensor));
            }
        });
        return Optional.of(new Scores(units, doubles(layers), doubles(blocks)));
    }

    private static Map<String, ReportEntry> report(String text) {
        Map<String, ReportEntry> report = new LinkedHashMap<>();
        try {
            for (ReportEntry entry : JSON.readValue(text, new TypeReference<List<ReportEntry>>() {})) {
                report.put(entry.key(), entry);
            }
        } catch (JsonProcessingException e) {
            throw new IllegalArgumentException("its report is no JSON", e);
        }
        return report;
    }

    /**
     * Removes the files: the run is done, or starts again.
     *
     * @throws UserException if they cannot be removed
     */
    void remove() {
        if (!Files.isDirectory(folder)) {
            return;
        }
        try (DirectoryStream<Path> files = Files.newDirectoryStream(folder, name + "*")) {
            for (Path each : files) {
                Files.deleteIfExists(each);
            }
        } catch (IOException e) {
            throw new UserException("cannot remove checkpoints in " + folder + ": " + FileFailure.reason(e), e);
        }
    }
}
