// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.diag.Sizes;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.ir.Widening;
import io.onnxprune.runtime.Session.Io;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;

/**
 * The roles of a decoder's graph inputs and outputs, found from types, ranks and axis names. The names of the standard
 * interface (input_ids, attention_mask, position_ids, ...) are used only to distinguish integer inputs of equal shape.
 */
public final class DecoderInterface {
    private static final long MAX_CACHE_BYTES = Integer.MAX_VALUE - 64;

    /** The role of a graph input other than a cache. */
    private enum Role {
        TOKENS,
        MASK,
        POSITIONS,
        ZEROS,
        CACHE_BRANCH,
        PAST_LENGTH,
        TOTAL_LENGTH
    }

    /**
     * A key or value cache: a graph input together with the output that updates it.
     *
     * @param input the graph input
     * @param output name of the graph output to be fed as the next step's input
     * @param batchAxis axis of the batch; -1 when its extent is fixed
     * @param pastAxis axis that grows with every token
     */
    public record Cache(Io input, String output, int batchAxis, int pastAxis) {}

    private final Map<Io, Role> roles = new LinkedHashMap<>();
    private final List<Cache> caches = new ArrayList<>();
    private final Io tokens;
    private final Io logits;

    /**
     * Finds the roles of all inputs and outputs.
     *
     * @throws UserException when there is no token input or no logits output, or an input has no known role
     */
    public DecoderInterface(List<Io> inputs, List<Io> outputs) {
        logits = findLogits(outputs);
        tokens = findTokens(inputs);
        List<Io> states = new ArrayList<>();
        for (Io input : inputs) {
            if (input.equals(tokens)) {
                roles.put(input, Role.TOKENS);
            } else if (input.dtype().isFloat() && input.rank() >= 3) {
                states.add(input);
            } else {
                roles.put(input, roleOf(input));
            }
        }
        pairCaches(states, outputs);
    }

    /**
     * Finds the roles of the inputs and outputs that a graph declares. Half-precision types are widened as by
     * {@link io.onnxprune.ir.Widening}.
     *
     * @throws UserException when there is no token input or no logits output, or an input has no known role
     */
    public static DecoderInterface of(Graph graph) {
        return new DecoderInterface(declared(graph.givenInputs()), declared(graph.outputs()));
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

    /** The input of token ids. */
    public Io tokens() {
        return tokens;
    }

    /** The output of logits. */
    public Io logits() {
        return logits;
    }

    /** The caches, in the order of their inputs. */
    public List<Cache> caches() {
        return caches;
    }

    private static Io findLogits(List<Io> outputs) {
        List<Io> candidates = outputs.stream()
                .filter(output -> output.dtype().isFloat() && output.rank() == 3)
                .toList();
        Optional<Io> named = candidates.stream()
                .filter(output -> lower(output).contains("logits"))
                .findFirst();
        if (named.isEmpty() && candidates.size() != 1) {
            throw new UserException("no output of the model can be identified as the logits (a float tensor of batch,"
                    + " sequence and vocabulary); export it as a causal language model");
        }
        return named.orElseGet(() -> candidates.get(0));
    }

    private static Io findTokens(List<Io> inputs) {
        List<Io> candidates = inputs.stream()
                .filter(input -> input.dtype().isIndex() && input.rank() == 2)
                .filter(input ->
                        !isMask(input) && !isPosition(input) && !lower(input).contains("token_type"))
                .toList();
        Optional<Io> named = candidates.stream()
                .filter(input -> lower(input).endsWith("input_ids"))
                .findFirst();
        if (named.isEmpty() && candidates.size() != 1) {
            throw new UserException("no input of the model can be identified as the tokens (int64 or int32 of batch and"
                    + " sequence); export it as a causal language model");
        }
        return named.orElseGet(() -> candidates.get(0));
    }

    private static String lower(Io io) {
        return io.name().toLowerCase(Locale.ROOT);
    }

    private static boolean isMask(Io input) {
        return lower(input).contains("mask");
    }

    private static boolean isPosition(Io input) {
        return lower(input).contains("position");
    }

    private static Role roleOf(Io input) {
        boolean integer = input.dtype().isIndex();
        if (isMask(input) && input.rank() == 2) {
            return Role.MASK;
        }
        if (integer && isPosition(input)) {
            return Role.POSITIONS;
        }
        if (input.dtype() == DType.BOOL && input.rank() <= 1) {
            return Role.CACHE_BRANCH;
        }
        if (integer && input.rank() <= 1 && lower(input).startsWith("past_seq")) {
            return Role.PAST_LENGTH;
        }
        if (integer && input.rank() <= 1 && lower(input).startsWith("total_seq")) {
            return Role.TOTAL_LENGTH;
        }
        if (integer && (lower(input).contains("token_type") || lower(input).contains("logits_to_keep"))) {
            return Role.ZEROS; // One segment; no limit on the positions that get logits.
        }
        throw new UserException(
                "the model's input %s (%s%s) is not a standard input of a decoder; export the model with the standard inputs"
                        .formatted(input.name(), input.dtype(), Arrays.toString(input.shape())));
    }

    /**
     * Pairs cache inputs with outputs by their names without "past" and "present"; by order when the names do not
     * match.
     */
    private void pairCaches(List<Io> states, List<Io> outputs) {
        List<Io> candidates = outputs.stream()
                .filter(output -> !output.equals(logits) && output.dtype().isFloat() && output.rank() >= 3)
                .toList();
        Map<String, Io> byStem = new HashMap<>();
        candidates.forEach(output -> byStem.put(stem(output), output));
        boolean named = states.stream().allMatch(state -> byStem.containsKey(stem(state)));
        if (!named && states.size() != candidates.size()) {
            throw new UserException(
                    "the model has %d cache inputs and %d cache outputs, which cannot be paired; export it with one output for each"
                            .formatted(states.size(), candidates.size()));
        }
        for (int i = 0; i < states.size(); i++) {
            Io output = named ? byStem.get(stem(states.get(i))) : candidates.get(i);
            caches.add(cache(states.get(i), output));
        }
    }

    private static String stem(Io io) {
        return lower(io)
                .replaceAll("past_key_values?|present_key_values?|past|present|_?(in|out)(put)?$", "")
                .replaceAll("[^a-z0-9]+", ".");
    }

    private Cache cache(Io input, Io output) {
        int batch = -1;
        int past = -1;
        for (int axis = 0; axis < input.rank(); axis++) {
            if (input.shape()[axis] >= 0) {
                continue;
            }
            String name = input.dimNames()[axis];
            if (batch < 0 && (!name.isEmpty() ? name.equals(tokens.dimNames()[0]) : axis == 0)) {
                batch = axis;
            } else if (past < 0 && (name.isEmpty() ? axis == input.rank() - 2 : grows(name, output, axis))) {
                past = axis;
            }
        }
        if (past < 0) {
            throw new UserException(
                    "the cache input %s has no axis that grows with the sequence; export it with a dynamic past length"
                            .formatted(input.name()));
        }
        return new Cache(input, output.name(), batch, past);
    }

    private static boolean grows(String name, Io output, int axis) {
        return output.rank() > axis && !name.equals(output.dimNames()[axis]);
    }

    /**
     * All inputs for a run over complete rows with empty caches.
     *
     * @param rows token ids {@code [batch][tokens]}, rows of equal length
     * @return one tensor for each graph input, by name
     */
    public Map<String, HostTensor> wholeRows(long[][] rows) {
        Map<String, HostTensor> all = feeds(rows, 0);
        caches().forEach(cache -> all.put(cache.input().name(), cache(cache, rows.length, 0, 0)));
        return all;
    }

    /**
     * The inputs other than caches for a step that processes {@code step} after {@code past} earlier tokens of each
     * row.
     *
     * @param step token ids {@code [batch][tokens]}, rows of equal length
     * @return one tensor for each graph input that is not a cache, by name
     */
    public Map<String, HostTensor> feeds(long[][] step, int past) {
        int batch = step.length;
        int length = step[0].length;
        Map<String, HostTensor> feeds = new LinkedHashMap<>();
        for (Map.Entry<Io, Role> entry : roles.entrySet()) {
            Io input = entry.getKey();
            HostTensor tensor = switch (entry.getValue()) {
                case TOKENS ->
                    integers(
                            input.dtype(),
                            new long[] {batch, length},
                            Arrays.stream(step).flatMapToLong(Arrays::stream).toArray());
                case MASK -> mask(input.dtype(), batch, past + length);
                case POSITIONS -> positions(input, batch, length, past);
                case ZEROS ->
                    HostTensor.zeros(input.dtype(), input.rank() == 2 ? new long[] {batch, length} : one(input));
                case CACHE_BRANCH -> HostTensor.ofBool(one(input), past > 0);
                case PAST_LENGTH -> filled(input, past);
                case TOTAL_LENGTH -> filled(input, past + length);
            };
            feeds.put(input.name(), tensor);
        }
        return feeds;
    }

    private static HostTensor integers(DType dtype, long[] shape, long[] values) {
        return HostTensor.ofIntegers(dtype, shape, values);
    }

    private static HostTensor mask(DType dtype, int batch, int length) {
        long[] shape = {batch, length};
        if (dtype.isFloat()) {
            float[] ones = new float[batch * length];
            Arrays.fill(ones, 1);
            return HostTensor.ofFloat32(shape, ones);
        }
        long[] ones = new long[batch * length];
        Arrays.fill(ones, 1);
        return integers(dtype, shape, ones);
    }

    /**
     * Positions counted from {@code past}, equal for all leading axes: [s], [b, s], or [3, b, s] for multimodal rotary
     * positions.
     */
    private static HostTensor positions(Io input, int batch, int length, int past) {
        long[] shape = switch (input.rank()) {
            case 1 -> new long[] {length};
            case 2 -> new long[] {batch, length};
            default -> new long[] {Math.max(1, input.shape()[0]), batch, length};
        };
        long[] values = new long[(int) Arrays.stream(shape).reduce(1, Math::multiplyExact)];
        Arrays.setAll(values, i -> past + i % length);
        return integers(input.dtype(), shape, values);
    }

    private static long[] one(Io input) {
        long[] shape = new long[input.rank()];
        Arrays.fill(shape, 1);
        return shape;
    }

    private static HostTensor filled(Io input, long value) {
        return integers(input.dtype(), one(input), new long[] {value});
    }

    /**
     * A cache filled with zeros.
     *
     * @param past number of positions that it holds
     * @param unknown extent of axes that the graph leaves open and that are neither batch nor past, such as a symbolic
     *     head size
     */
    public static HostTensor cache(Cache cache, int batch, int past, int unknown) {
        long[] shape = cache.input().shape().clone();
        for (int axis = 0; axis < shape.length; axis++) {
            if (axis == cache.batchAxis()) {
                shape[axis] = batch;
            } else if (axis == cache.pastAxis()) {
                shape[axis] = past;
            } else if (shape[axis] < 0) {
                shape[axis] = unknown;
            }
        }
        Sizes sizes = new Sizes(
                "the cache input \"" + cache.input().name() + '"',
                "export the model again with the extents of its caches");
        sizes.between("a size in bytes of", sizes.bytes(cache.input().dtype().bits(), shape), 0, MAX_CACHE_BYTES);
        return HostTensor.zeros(cache.input().dtype(), shape);
    }

    /** Whether any cache has an axis of unknown extent that is neither batch nor past. */
    public boolean hasUnknownExtent() {
        return caches.stream().anyMatch(DecoderInterface::hasUnknownExtent);
    }

    /** Whether this cache has an axis of unknown extent that is neither batch nor past. */
    public static boolean hasUnknownExtent(Cache cache) {
        for (int axis = 0; axis < cache.input().rank(); axis++) {
            if (cache.input().shape()[axis] < 0 && axis != cache.batchAxis() && axis != cache.pastAxis()) {
                return true;
            }
        }
        return false;
    }
}
