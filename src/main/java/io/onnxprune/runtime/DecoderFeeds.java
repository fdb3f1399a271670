package io.onnxprune.runtime;

import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Makes inputs of given batch, sequence and past length for any exported decoder, from the declared types of its graph
 * inputs: integer matrices are tokens (or, by the naming standard of these interfaces, masks and positions), float
 * tensors of rank three or more are caches.
 */
public final class DecoderFeeds {
    private final List<Session.Io> inputs;
    private final Map<String, Long> extentHints;

    /**
     * @param extentHints for inputs with a symbolic axis beyond batch and past (a cache's head size): its extent
     */
    public DecoderFeeds(List<Session.Io> inputs, Map<String, Long> extentHints) {
        this.inputs = inputs;
        this.extentHints = extentHints;
    }

    /**
     * Inputs for {@code sequence} new tokens (ids 1, 2, 1, 2, ...) after {@code past} cached positions of zeros.
     *
     * @param flag the value of boolean switches (a merged decoder's use_cache_branch)
     */
    public Map<String, HostTensor> make(long batch, long sequence, long past, boolean flag) {
        long[] tokens = new long[Math.toIntExact(batch * sequence)];
        for (int i = 0; i < tokens.length; i++) {
            tokens[i] = 1L + i % 2;
        }
        return make(batch, sequence, past, flag, tokens);
    }

    /** As above with the given token ids, row by row. */
    public Map<String, HostTensor> make(long batch, long sequence, long past, boolean flag, long[] tokens) {
        boolean cached = inputs.stream().anyMatch(DecoderFeeds::isCache);
        Map<String, HostTensor> feeds = new LinkedHashMap<>();
        for (Session.Io input : inputs) {
            feeds.put(input.name(), feed(input, batch, sequence, cached ? past : 0, flag, tokens));
        }
        return feeds;
    }

    /** Whether an input holds keys or values of earlier positions. */
    public static boolean isCache(Session.Io input) {
        return isFloat(input) && input.rank() >= 3 && !input.name().contains("embed");
    }

    private static boolean isFloat(Session.Io input) {
        return input.dtype().isFloat();
    }

    private HostTensor feed(Session.Io input, long batch, long sequence, long past, boolean flag, long[] tokens) {
        long[] shape = input.shape().clone();
        if (isFloat(input)) {
            boolean pastSeen = false;
            for (int axis = 0; axis < shape.length; axis++) {
                if (shape[axis] < 0) {
                    if (axis == 0) {
                        shape[axis] = batch;
                    } else if (!pastSeen) {
                        shape[axis] = isCache(input) ? past : sequence;
                        pastSeen = true;
                    } else if (extentHints.containsKey(input.name())) {
                        shape[axis] = extentHints.get(input.name());
                    } else {
                        throw new UserException("cannot tell the extent of axis " + axis + " of graph input \""
                                + input.name() + "\"; export it with a number there");
                    }
                }
            }
            return HostTensor.zeros(input.dtype(), shape);
        }
        if (input.dtype() == DType.BOOL && input.rank() <= 1) {
            boolean[] flags = new boolean[input.rank() == 0 ? 1 : (int) Math.max(1, shape[0])];
            Arrays.fill(flags, flag);
            return HostTensor.ofBool(input.rank() == 0 ? new long[0] : new long[] {flags.length}, flags);
        }
        boolean mask = input.name().contains("mask");
        boolean position = input.name().contains("position");
        long length = mask ? past + sequence : sequence;
        for (int axis = 0; axis < shape.length; axis++) {
            if (shape[axis] < 0) {
                shape[axis] = axis == shape.length - 1 ? length : axis == 0 ? batch : 1;
            }
        }
        long[] values = new long[Math.toIntExact(io.onnxprune.ir.Tensor.elements(shape))];
        int row = shape.length == 0 ? 1 : (int) Math.max(1, shape[shape.length - 1]);
        for (int i = 0; i < values.length; i++) {
            values[i] = mask ? 1 : position ? past + i % row : tokens[i % tokens.length];
        }
        if (input.dtype() == DType.BOOL) {
            boolean[] flags = new boolean[values.length];
            Arrays.fill(flags, true);
            return HostTensor.ofBool(shape, flags);
        }
        return HostTensor.ofIntegers(input.dtype(), shape, values);
    }
}
