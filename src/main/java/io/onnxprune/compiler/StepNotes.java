// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.TensorFile;
import io.onnxprune.ir.TensorFile.DamagedException;
import io.onnxprune.ir.TensorFile.Form;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PlanFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.StringJoiner;

/**
 * A file of the work folder that says what the steps of a run have come to, so that a run that was stopped can go on: the plan, the
 * new weights, and sets of constants that a caller wants to know again. It is replaced as a whole after each step, so that a stop at
 * any time leaves the last one or the one before.
 */
final class StepNotes {
    /** Digits of a hash that tell one run from others in the name of a file. */
    private static final int KEY = 16;

    private final Path file;
    private final Structure structure;
    private final String model;
    private final Log log;
    /** Constants of the model by a name that no other has. */
    private final Map<String, Value> constants = new LinkedHashMap<>();

    private final Map<Value, String> names = new HashMap<>();

    /**
     * How far a run has come.
     *
     * @param step how many steps are done
     * @param outcome of the last of them
     * @param marks sets of constants by name
     */
    record Reached(int step, Steps.Outcome outcome, Map<String, Set<Value>> marks) {}

    /**
     * Notes about one kind of run on one model.
     *
     * @param folder the work folder
     * @param model hash of the model
     * @param key tells this run from others: what {@link #key} makes of everything that its outcome depends on
     */
    StepNotes(Path folder, Structure structure, String model, String key, Log log) {
        this.file = folder.resolve("steps-" + key + ".safetensors");
        this.structure = structure;
        this.model = model;
        this.log = log;
        Program program = structure.analysis().program();
        program.initializers().values().forEach(this::name);
        for (Op op : program.ops()) {
            op.inputs().stream()
                    .filter(value -> value != null && value.constant() != null)
                    .forEach(this::name);
        }
    }

    /** Branches of an If may use one name for different constants. */
    private void name(Value value) {
        if (!names.containsKey(value)) {
            String name = value.name();
            for (int count = 2; constants.containsKey(name); count++) {
                name = value.name() + '#' + count;
            }
            constants.put(name, value);
            names.put(value, name);
        }
    }

    /**
     * A short form of what a run depends on.
     *
     * @param parts their text says all about them
     * @param rows token ids
     */
    static String key(List<?> parts, Collection<long[]> rows) {
        try {
            MessageDigest digest = MessageDigest.getInstance("SHA-256");
            parts.forEach(part -> digest.update((part + "\n").getBytes(UTF_8)));
            for (long[] row : rows) {
                ByteBuffer bytes = ByteBuffer.allocate(Long.BYTES * row.length);
                bytes.asLongBuffer().put(row);
                digest.update(bytes);
                digest.update((byte) 0);
            }
            return HexFormat.of().formatHex(digest.digest()).substring(0, KEY);
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java platform has SHA-256", e);
        }
    }

    /**
     * Notes that a step is done.
     *
     * @throws UserException when that cannot be written
     */
    void save(Reached reached) {
        Map<String, String> about = new LinkedHashMap<>();
        about.put("format", "onnx-prune steps");
        about.put("step", Integer.toString(reached.step));
        about.put("plan", PlanFile.text(reached.outcome.plan(), structure));
        reached.marks.forEach((mark, values) -> about.put("mark " + mark, places(values)));
        Map<String, Tensor> updates = new LinkedHashMap<>();
        constants.forEach((name, value) -> {
            if (reached.outcome.updates().containsKey(value)) {
                updates.put(name, reached.outcome.updates().get(value));
            }
        });
        if (updates.size() != reached.outcome.updates().size()) {
            throw new IllegalArgumentException("new weights of what is no constant of the model");
        }
        Map<String, Form> forms = new LinkedHashMap<>();
        updates.forEach((name, tensor) -> forms.put(name, Form.of(tensor)));
        try {
            Files.createDirectories(file.getParent());
            try (TensorFile target = TensorFile.named(file, forms, about)) {
                for (Map.Entry<String, Tensor> update : updates.entrySet()) {
                    target.write(update.getKey(), update.getValue().bytes());
                }
                target.complete();
            }
        } catch (IOException e) {
            throw new UserException(
                    "cannot note in %s what the steps have come to: %s; free space there or name another --work-dir"
                            .formatted(file.getParent(), FileFailure.reason(e)),
                    e);
        }
    }

    /** Constants by their numbers: names may hold any character. */
    private String places(Set<Value> values) {
        StringJoiner places = new StringJoiner(" ");
        int place = 0;
        for (Value value : constants.values()) {
            if (values.contains(value)) {
                places.add(Integer.toString(place));
            }
            place++;
        }
        return places.toString();
    }

    /**
     * How far the run came that was stopped; empty if there was none. The new weights are mapped from the file.
     *
     * @param steps how many there are in all, for a message
     * @throws UserException when the file is damaged
     */
    Optional<Reached> load(int steps) {
        if (!Files.exists(file)) {
            log.info("no step of such a run is noted in " + file.getParent() + "; pruning begins anew");
            return Optional.empty();
        }
        try (TensorFile source = TensorFile.open(file)) {
            source.requireWhole();
            int step = Integer.parseInt(source.metadata().get("step"));
            Plan plan = PlanFile.ofText(source.metadata().get("plan"), file, structure, model);
            Map<Value, Tensor> updates = new HashMap<>();
            for (String name : source.names()) {
                updates.put(constants.get(name), source.tensor(name));
            }
            Map<String, Set<Value>> marks = new HashMap<>();
            source.metadata().forEach((key, text) -> {
                if (key.startsWith("mark ")) {
                    marks.put(key.substring("mark ".length()), values(text));
                }
            });
            log.info("pruning goes on: %d of %d steps are done".formatted(step, steps));
            return Optional.of(new Reached(step, new Steps.Outcome(plan, updates), marks));
        } catch (DamagedException | NumberFormatException e) {
            throw new UserException("the notes " + file + " are damaged; remove them, or leave out --resume", e);
        } catch (IOException e) {
            throw new UserException("cannot read the notes " + file + ": " + FileFailure.reason(e), e);
        }
    }

    private Set<Value> values(String places) {
        List<Value> all = new ArrayList<>(constants.values());
        Set<Value> values = new HashSet<>();
        for (String place : places.isEmpty() ? new String[0] : places.split(" ")) {
            values.add(all.get(Integer.parseInt(place)));
        }
        return values;
    }

    /** Removes the file: the run is done. */
    void remove() {
        try {
            Files.deleteIfExists(file);
        } catch (IOException e) {
            throw new UserException("cannot remove the notes " + file + ": " + FileFailure.reason(e), e);
        }
    }
}
