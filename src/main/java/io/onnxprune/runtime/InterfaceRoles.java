// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.runtime.Session.Io;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;
import java.util.Set;

/**
 * Finds the roles of a model's inputs and outputs, from types, ranks and axis names. The names of the standard
 * interface (input_ids, attention_mask, position_ids, ...) only distinguish inputs of equal type and rank.
 */
final class InterfaceRoles {
    /** The role of a graph input that is not a state. */
    enum Role {
        /** Token ids, or one embedding for each token. */
        ROWS,
        /** One element for each position up to the last token. */
        MASK,
        /** One element for each pair of a token and a position that it may attend to. */
        ATTENTION_MASK,
        POSITIONS,
        ZEROS,
        CACHE_BRANCH,
        PAST_LENGTH,
        TOTAL_LENGTH,
        /** An input that does not follow from the tokens, such as the states of an encoder. */
        SIDE
    }

    /** A padded vocabulary has a few more rows in the table of embeddings than in the logits, or fewer. */
    private static final double NEARLY_ALL = 0.9;

    private static final double MOST = 0.5;

    private final List<Io> inputs;
    private final List<Io> outputs;
    private final Map<Io, Role> roles = new LinkedHashMap<>();
    /** The output that updates each input. */
    private final Map<Io, Io> updates = new LinkedHashMap<>();

    private final OptionalLong vocabulary;
    private final Optional<Io> logits;

    /**
     * Finds the roles.
     *
     * @param graph the graph with these inputs and outputs
     */
    InterfaceRoles(List<Io> inputs, List<Io> outputs, Graph graph) {
        this.inputs = inputs;
        this.outputs = outputs;
        pairByName();
        Optional<Io> tokens = tokens();
        tokens.ifPresent(input -> roles.put(input, Role.ROWS));
        if (tokens.isEmpty()) {
            embeddings().ifPresent(input -> roles.put(input, Role.ROWS));
        }
        for (Io input : inputs) {
            if (!roles.containsKey(input) && !updates.containsKey(input)) {
                roles.put(input, roleOf(input));
            }
        }
        pairByShape();
        this.vocabulary =
                tokens.map(input -> TokenTable.size(graph, input.name())).orElse(OptionalLong.empty());
        this.logits = findLogits();
    }

    /** The roles of all inputs that are not states. */
    Map<Io, Role> roles() {
        return roles;
    }

    /** The input that takes the rows of data. */
    Optional<Io> rows() {
        return roles.entrySet().stream()
                .filter(entry -> entry.getValue() == Role.ROWS)
                .map(Map.Entry::getKey)
                .findFirst();
    }

    /** The number of token ids, which is the number of rows of the table that they index; empty when it is unknown. */
    OptionalLong vocabulary() {
        return vocabulary;
    }

    /** The output whose last axis is the vocabulary. */
    Optional<Io> logits() {
        return logits;
    }

    /** The outputs that are no states; those of a language model are its logits. */
    List<Io> results() {
        if (logits.isPresent()) {
            return List.of(logits.get());
        }
        return outputs.stream()
                .filter(output -> output.dtype().isFloat() && !updates.containsValue(output))
                .toList();
    }

    /** The states, in the order of their inputs. */
    List<State> states() {
        List<State> states = new ArrayList<>();
        updates.forEach((input, output) -> states.add(state(input, output, true)));
        if (states.stream().noneMatch(state -> state.pastAxis() >= 0)) {
            // Nothing grows by its names: some exports name the past as they name the present.
            states.clear();
            updates.forEach((input, output) -> states.add(state(input, output, false)));
        }
        return states;
    }

    /**
     * Pairs an input with the output of the same name without "past" and "present". Everything that is fed back so is
     * a state, whatever its type and rank.
     */
    private void pairByName() {
        Map<String, Io> byStem = new HashMap<>();
        outputs.forEach(output -> byStem.put(stem(output), output));
        for (Io input : inputs) {
            Io output = byStem.get(stem(input));
            if (output != null && output.dtype() == input.dtype() && input.rank() >= 2) {
                updates.put(input, output);
            }
        }
    }

    private static String stem(Io io) {
        return lower(io)
                .replaceAll("past_key_values?|present_key_values?|past|present|_?(in|out)(put)?$", "")
                .replaceAll("[^a-z0-9]+", ".");
    }

    /** Pairs what is left of the float inputs of three axes and more with outputs of the same extents, in order. */
    private void pairByShape() {
        List<Io> free = new ArrayList<>(outputs);
        free.removeAll(updates.values());
        free.removeIf(output ->
                !output.dtype().isFloat() || output.rank() < 3 || lower(output).contains("logits"));
        Map<Io, Io> found = new LinkedHashMap<>();
        for (Io input : inputs) {
            if (roles.get(input) == Role.SIDE && input.dtype().isFloat() && input.rank() >= 3) {
                free.stream().filter(output -> agree(input, output)).findFirst().ifPresent(output -> {
                    free.remove(output);
                    found.put(input, output);
                });
            }
        }
        found.forEach((input, output) -> {
            roles.remove(input);
            updates.put(input, output);
        });
    }

    private static boolean agree(Io input, Io output) {
        boolean agree = input.rank() == output.rank() && input.dtype() == output.dtype();
        for (int axis = 0; agree && axis < input.rank(); axis++) {
            agree = input.shape()[axis] < 0 || output.shape()[axis] < 0 || input.shape()[axis] == output.shape()[axis];
        }
        return agree;
    }

    private Optional<Io> tokens() {
        List<Io> candidates = inputs.stream()
                .filter(input -> input.dtype().isIndex() && input.rank() == 2 && !updates.containsKey(input))
                .filter(input ->
                        !isMask(input) && !isPosition(input) && !lower(input).contains("token_type"))
                .toList();
        Set<String> lengths = new HashSet<>();
        outputs.stream().filter(output -> output.rank() == 3).forEach(output -> lengths.add(output.dimNames()[1]));
        lengths.remove("");
        return candidates.stream()
                .filter(input -> candidates.size() == 1 || lengths.contains(input.dimNames()[1]))
                .findFirst()
                .or(() -> candidates.stream()
                        .filter(input -> lower(input).endsWith("input_ids"))
                        .findFirst());
    }

    /** An input of one vector for each token. */
    private Optional<Io> embeddings() {
        List<Io> candidates = inputs.stream()
                .filter(input -> input.dtype().isFloat() && input.rank() == 3 && !updates.containsKey(input))
                .filter(input -> !isMask(input) && input.shape()[2] > 0)
                .toList();
        Set<String> lengths = new HashSet<>();
        outputs.stream()
                .filter(output -> output.rank() == 3 && !updates.containsValue(output))
                .forEach(output -> lengths.add(length(output)));
        return candidates.stream()
                .filter(input -> lower(input).contains("embed"))
                .findFirst()
                .or(() -> candidates.stream()
                        .filter(input -> lengths.contains(length(input)))
                        .findFirst());
    }

    private static String length(Io io) {
        return io.shape()[1] + io.dimNames()[1];
    }

    private Role roleOf(Io input) {
        boolean integer = input.dtype().isIndex();
        boolean number = integer || input.dtype() == DType.BOOL || input.dtype().isFloat();
        String name = lower(input);
        if (isMask(input) && number && input.rank() == 2) {
            return Role.MASK;
        }
        if (isMask(input) && number && input.rank() > 2) {
            return Role.ATTENTION_MASK;
        }
        if (integer && isPosition(input)) {
            return Role.POSITIONS;
        }
        if (input.dtype() == DType.BOOL && input.rank() <= 1) {
            return Role.CACHE_BRANCH;
        }
        if (integer && input.rank() <= 2 && name.startsWith("past_seq")) {
            return Role.PAST_LENGTH;
        }
        if (integer && input.rank() <= 2 && name.startsWith("total_seq")) {
            return Role.TOTAL_LENGTH;
        }
        if (integer && (name.contains("token_type") || name.contains("logits_to_keep"))) {
            return Role.ZEROS; // One segment; no limit on the positions that get logits.
        }
        return Role.SIDE;
    }

    /** The output over the vocabulary: of as many values for each token as there are token ids. */
    private Optional<Io> findLogits() {
        List<Io> candidates = outputs.stream()
                .filter(output -> output.dtype().isFloat() && !updates.containsValue(output))
                .filter(output -> output.rank() == 3 || output.rank() == 2 || output.rank() == 0)
                .toList();
        Optional<Io> named = candidates.stream()
                .filter(output -> lower(output).contains("logits"))
                .filter(output -> share(output) >= MOST)
                .findFirst();
        return named.or(() -> candidates.stream()
                .filter(output -> candidates.size() == 1 && output.rank() >= 2)
                .filter(output -> share(output) >= NEARLY_ALL)
                .filter(output -> vocabulary.isPresent() || output.rank() == 3 && !isAsWideAsRows(output))
                .findFirst());
    }

    /** The last extent of an output as a share of the vocabulary; 1 when either is unknown. */
    private double share(Io output) {
        long extent = output.rank() == 0 ? -1 : output.shape()[output.rank() - 1];
        return extent < 0 || vocabulary.isEmpty() ? 1 : extent / (double) vocabulary.getAsLong();
    }

    private boolean isAsWideAsRows(Io output) {
        return rows().filter(input -> input.rank() == 3 && input.shape()[2] == output.shape()[2])
                .isPresent();
    }

    /**
     * A state with its axes.
     *
     * @param byName whether an axis grows only when input and output name it differently
     */
    private State state(Io input, Io output, boolean byName) {
        String batchName = rows().filter(io -> io.shape()[0] < 0)
                .map(io -> io.dimNames()[0])
                .orElse("");
        int batch = -1;
        int past = -1;
        int context = -1;
        for (int axis = 0; axis < input.rank(); axis++) {
            String name = input.dimNames()[axis];
            if (input.shape()[axis] >= 0) {
                continue;
            }
            boolean isBatch = !name.isEmpty() && name.equals(batchName)
                    || axis == 0 && (name.isEmpty() || !grows(name, output, axis));
            if (batch < 0 && isBatch) {
                batch = axis;
            } else if (past < 0 && (name.isEmpty() ? axis == input.rank() - 2 : grows(name, output, axis))) {
                past = axis;
            } else if (axis == input.rank() - 2 || context < 0) {
                context = axis;
            }
        }
        if (past < 0 && !byName) {
            return new State(input, output.name(), batch, context, -1);
        }
        return new State(input, output.name(), batch, past, past < 0 ? context : -1);
    }

    private static boolean grows(String name, Io output, int axis) {
        return output.rank() > axis && !name.equals(output.dimNames()[axis]);
    }

    static String lower(Io io) {
        return io.name().toLowerCase(Locale.ROOT);
    }

    private static boolean isMask(Io input) {
        return lower(input).contains("mask");
    }

    private static boolean isPosition(Io input) {
        return lower(input).contains("position");
    }
}
