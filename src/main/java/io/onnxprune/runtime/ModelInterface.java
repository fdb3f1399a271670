// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.ir.Widening;
import io.onnxprune.runtime.InterfaceRoles.Role;
import io.onnxprune.runtime.Session.Io;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;
import java.util.stream.Collectors;

/**
 * The roles of a model's inputs and outputs, and tensors for its inputs. A model takes rows of token ids or of
 * embeddings. A language model gives logits; an encoder gives other results.
 *
 * <p>Every model can be run: an input that does not follow from the rows gets noise, or zeros if it is of integers.
 */
public final class ModelInterface {
    private final Map<Io, Role> roles;
    private final List<State> states;
    private final Optional<Io> rows;
    private final OptionalLong vocabulary;
    private final Optional<Io> logits;
    private final List<Io> results;
    /** The extents of inputs beside the rows, by the name of their axis. */
    private final Map<String, Integer> sideExtents = new HashMap<>();

    private final SideInputs sides;

    private ModelInterface(InterfaceRoles found) {
        roles = found.roles();
        states = found.states();
        rows = found.rows();
        vocabulary = found.vocabulary();
        logits = found.logits();
        results = found.results();
        sides = SideInputs.NONE;
        nameSideExtents();
    }

    private ModelInterface(ModelInterface other, SideInputs sides) {
        this.roles = other.roles;
        this.states = other.states;
        this.rows = other.rows;
        this.vocabulary = other.vocabulary;
        this.logits = other.logits;
        this.results = other.results;
        this.sideExtents.putAll(other.sideExtents);
        this.sides = sides;
    }

    /**
     * Finds the roles of the inputs and outputs that a graph declares. Half-precision types are widened as by
     * {@link io.onnxprune.ir.Widening}.
     */
    public static ModelInterface of(Graph graph) {
        return new ModelInterface(new InterfaceRoles(declared(graph.givenInputs()), declared(graph.outputs()), graph));
    }

    /**
     * Finds the roles of the inputs and outputs of an open model.
     *
     * @param graph the graph of this model
     */
    public static ModelInterface of(Session session, Graph graph) {
        return new ModelInterface(new InterfaceRoles(session.inputs(), session.outputs(), graph));
    }

    private static List<Io> declared(List<ValueInfo> values) {
        List<Io> declared = new ArrayList<>();
        for (ValueInfo value : values) {
            List<ValueInfo.Extent> extents = value.shape() == null ? List.of() : value.shape();
            declared.add(new Io(
                    value.name(),
                    Widening.widen(value.dtype()),
                    extents.stream().mapToLong(ValueInfo.Extent::size).toArray(),
                    extents.stream().map(ValueInfo.Extent::symbol).toArray(String[]::new)));
        }
        return declared;
    }

    /** This interface with the contents of inputs that do not follow from the tokens. */
    public ModelInterface with(SideInputs given) {
        return new ModelInterface(this, given);
    }

    /** The input that takes the rows: token ids {@code [batch, tokens]}, or embeddings with a third axis. */
    public Optional<Io> rows() {
        return rows;
    }

    /**
     * The input that takes the rows.
     *
     * @throws UserException when there is none
     */
    public Io requireRows() {
        return rows.orElseThrow(() -> new UserException(
                "the model takes neither token ids nor embeddings, so it cannot be run on data; its inputs are "
                        + roles.keySet().stream().map(Io::name).collect(Collectors.joining(", "))
                        + "; choose a method that needs no data"));
    }

    /** Whether the rows are token ids. */
    public boolean takesTokens() {
        return rows.filter(input -> input.rank() == 2).isPresent();
    }

    /** The number of token ids; empty when it is unknown. */
    public OptionalLong vocabulary() {
        return takesTokens() ? vocabulary : sides.vocabulary();
    }

    /** Whether the rows are tokens, or embeddings of known tokens. */
    public boolean knowsTokens() {
        return takesTokens() || sides.areOfTokens();
    }

    /** The names of the inputs whose contents differ from row to row. */
    public Set<String> contentInputs() {
        return roles.entrySet().stream()
                .filter(entry -> entry.getValue() == Role.ROWS || entry.getValue() == Role.SIDE)
                .map(entry -> entry.getKey().name())
                .collect(Collectors.toCollection(LinkedHashSet::new));
    }

    /** The output over the vocabulary; empty when the model is no language model. */
    public Optional<Io> logits() {
        return logits;
    }

    /**
     * The output over the vocabulary.
     *
     * @throws UserException when the model has none
     */
    public Io requireLogits() {
        return logits.orElseThrow(() -> new UserException(
                "the model has no output over a vocabulary, so it has no language loss; its outputs are "
                        + results.stream()
                                .map(output -> output.name() + Arrays.toString(output.shape()))
                                .collect(Collectors.joining(", "))));
    }

    /** The outputs that are no states: the logits of a language model, all results of any other model. */
    public List<Io> results() {
        return results;
    }

    /** The output at the end of the network: the logits, or else the first result with the most axes. */
    public Io end() {
        return logits.orElseGet(() -> results.stream()
                .reduce((best, next) -> next.rank() > best.rank() ? next : best)
                .orElseThrow(() -> new UserException("the model has no output of floating-point numbers")));
    }

    /** The states, in the order of their inputs. */
    public List<State> states() {
        return states;
    }

    /** The only number of rows that the graph takes in a run; empty when it takes any. */
    public OptionalInt fixedBatch() {
        return fixed(0);
    }

    /** The only length of rows that the graph takes, in tokens; empty when it takes any. */
    public OptionalInt fixedLength() {
        return fixed(1);
    }

    private OptionalInt fixed(int axis) {
        return rows.filter(input -> input.shape()[axis] >= 0)
                .map(input -> OptionalInt.of((int) input.shape()[axis]))
                .orElse(OptionalInt.empty());
    }

    /** The axes of the inputs that follow from the size of the rows rather than from the network, by input. */
    public Map<String, Set<Integer>> variableAxes() {
        Map<String, Set<Integer>> variable = new LinkedHashMap<>();
        roles.forEach((input, role) -> {
            Set<Integer> axes = variable.computeIfAbsent(input.name(), key -> new LinkedHashSet<>());
            boolean network = role == Role.ROWS || role == Role.SIDE;
            for (int axis = 0; axis < input.rank(); axis++) {
                boolean last = axis == 2 || role == Role.SIDE && axis > 0 && axis == input.rank() - 1;
                if (!network || !last && (role == Role.ROWS || axis == 0)) {
                    axes.add(axis);
                }
            }
        });
        return variable;
    }

    /** The inputs that do not follow from the rows and whose contents are not given. */
    public List<Io> unknownInputs() {
        List<Io> unknown = new ArrayList<>();
        roles.forEach((input, role) -> {
            boolean guessed = role == Role.SIDE || role == Role.ROWS && input.rank() != 2;
            if (guessed && !sides.names().contains(input.name())) {
                unknown.add(input);
            }
        });
        return unknown;
    }

    /**
     * All inputs for a run over complete rows with empty caches.
     *
     * @param tokens token ids {@code [batch][tokens]}, rows of equal length
     * @return one tensor for each graph input, by name
     */
    public Map<String, HostTensor> wholeRows(long[][] tokens) {
        return wholeRows(tokens, 0);
    }

    /**
     * All inputs for a run over complete rows with empty caches.
     *
     * @param unknown extent of axes of caches that the graph leaves open, such as a symbolic head size
     */
    public Map<String, HostTensor> wholeRows(long[][] tokens, int unknown) {
        Map<String, HostTensor> all = feeds(tokens, 0);
        RowSize size = size(tokens, 0);
        states.forEach(state -> all.put(state.input().name(), state.initial(size, unknown)));
        return all;
    }

    /** The size of a run over these rows. */
    public RowSize size(long[][] tokens, int past) {
        int usual = rows.isPresent() ? RowSize.USUAL_CONTEXT : RowSize.LONG_CONTEXT;
        return new RowSize(
                tokens.length, tokens[0].length, past, sides.context(tokens).orElse(usual));
    }

    /**
     * The inputs other than states for a step that processes {@code step} after {@code past} earlier tokens of each
     * row.
     *
     * @param step token ids {@code [batch][tokens]}, rows of equal length
     * @return one tensor for each graph input that is not a state, by name
     */
    public Map<String, HostTensor> feeds(long[][] step, int past) {
        return feeds(step, size(step, past));
    }

    /** The inputs other than states for a step of this size. */
    public Map<String, HostTensor> feeds(long[][] step, RowSize size) {
        Map<String, HostTensor> given = sides.of(step);
        Map<String, HostTensor> feeds = new LinkedHashMap<>();
        Masks masks = new Masks(size, states);
        for (Map.Entry<Io, Role> entry : roles.entrySet()) {
            Io input = entry.getKey();
            HostTensor tensor = given.get(input.name());
            feeds.put(
                    input.name(),
                    tensor != null
                            ? tensor.inFloatsOf(input.dtype())
                            : feed(input, entry.getValue(), step, size, masks));
        }
        return feeds;
    }

    private HostTensor feed(Io input, Role role, long[][] step, RowSize size, Masks masks) {
        return switch (role) {
            case ROWS ->
                input.rank() == 2
                        ? HostTensor.ofIntegers(
                                input.dtype(),
                                new long[] {size.batch(), size.length()},
                                Arrays.stream(step)
                                        .flatMapToLong(Arrays::stream)
                                        .toArray())
                        : Noise.embeddings(input, step);
            case MASK -> isOfContext(input) ? masks.ofContext(input) : masks.ofPositions(input);
            case ATTENTION_MASK -> isOfContext(input) ? masks.ofContext(input) : masks.ofPairs(input);
            case POSITIONS -> positions(input, size);
            case ZEROS ->
                HostTensor.zeros(
                        input.dtype(), input.rank() == 2 ? new long[] {size.batch(), size.length()} : one(input));
            case CACHE_BRANCH -> HostTensor.ofBool(one(input), size.past() > 0);
            case PAST_LENGTH -> filled(input, size.past());
            case TOTAL_LENGTH -> filled(input, size.past() + size.length());
            case SIDE -> side(input, size);
        };
    }

    /** Whether a mask is of the positions of another input, by the name of its last axis. */
    private boolean isOfContext(Io mask) {
        String name = mask.dimNames()[mask.rank() - 1];
        String length = rows.map(input -> input.dimNames()[1]).orElse("");
        boolean shared = !name.isEmpty() && !name.equals(length) && sideExtents.containsKey(name);
        return shared || name.isEmpty() && InterfaceRoles.lower(mask).contains("encoder");
    }

    /** Gives every axis of an input beside the rows an extent: different ones for different names. */
    private void nameSideExtents() {
        Set<String> known = new LinkedHashSet<>();
        rows.ifPresent(input -> known.addAll(List.of(input.dimNames()[0], input.dimNames()[1])));
        for (Map.Entry<Io, Role> entry : roles.entrySet()) {
            Io input = entry.getKey();
            for (int axis = rows.isPresent() ? 1 : 0; entry.getValue() == Role.SIDE && axis < input.rank(); axis++) {
                String name = input.dimNames()[axis];
                if (input.shape()[axis] < 0 && !known.contains(name)) {
                    sideExtents.putIfAbsent(name, sideExtents.size());
                }
            }
        }
    }

    private HostTensor side(Io input, RowSize size) {
        String length = rows.map(io -> io.dimNames()[1]).orElse("");
        long[] shape = input.shape().clone();
        for (int axis = 0; axis < shape.length; axis++) {
            String name = input.dimNames()[axis];
            if (shape[axis] < 0) {
                boolean batch = axis == 0 && (rows.isPresent() || input.rank() > 1);
                shape[axis] = batch
                        ? size.batch()
                        : !name.isEmpty() && name.equals(length)
                                ? size.length()
                                : size.context() + 2L * sideExtents.getOrDefault(name, 0);
            }
        }
        return input.dtype().isFloat()
                ? Noise.rows(input.name(), input.dtype(), shape)
                : HostTensor.zeros(input.dtype(), shape);
    }

    /**
     * Positions counted from {@code past}, equal for all leading axes: [s], [b, s], or [3, b, s] for multimodal rotary
     * positions.
     */
    private static HostTensor positions(Io input, RowSize size) {
        long[] shape = switch (input.rank()) {
            case 0 -> new long[0];
            case 1 -> new long[] {size.length()};
            case 2 -> new long[] {input.shape()[0] == 1 ? 1 : size.batch(), size.length()};
            default -> new long[] {Math.max(1, input.shape()[0]), size.batch(), size.length()};
        };
        if (input.rank() > 0 && input.shape()[input.rank() - 1] == 1) {
            shape[input.rank() - 1] = 1;
        }
        long[] values = new long[(int) Arrays.stream(shape).reduce(1, Math::multiplyExact)];
        Arrays.setAll(values, i -> size.past() + i % (shape.length == 0 ? 1 : shape[shape.length - 1]));
        return HostTensor.ofIntegers(input.dtype(), shape, values);
    }

    private static long[] one(Io input) {
        long[] shape = new long[input.rank()];
        Arrays.fill(shape, 1);
        return shape;
    }

    private static HostTensor filled(Io input, long value) {
        return HostTensor.ofIntegers(input.dtype(), one(input), value);
    }

    /** Whether any state has an axis of unknown extent. */
    public boolean hasUnknownExtent() {
        return states.stream().anyMatch(State::hasUnknownExtent);
    }
}
