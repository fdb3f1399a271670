// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.OutOfMemoryException;
import io.onnxprune.diag.TimeLimitException;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.Widening;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.RowSize;
import io.onnxprune.runtime.Session;
import io.onnxprune.runtime.State;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Concrete shapes of all values, and the contents of small integer ones, from two runs of the graph with different
 * batch, sequence and past lengths. Values that differ between the runs are dynamic.
 */
public final class Trace {
    private static final int MAX_ELEMENTS = 256;
    private static final Pattern REQUEST = Pattern.compile("at node .*, which requests \\d+ bytes");

    /**
     * What tracing may take. The copy that is traced takes milliseconds, and little more memory than the constants that
     * it makes at run time.
     *
     * @param time of all runs together, beside what follows from the number of nodes
     * @param bytes of all values of a run, beside what follows from the constants of the model
     */
    record Budget(Duration time, long bytes) {
        static final Budget USUAL = new Budget(Duration.ofSeconds(30), 2L << 30);

        /** Every value is an output, which takes ONNX Runtime longer the more there are. */
        private static final Duration EACH_NODE = Duration.ofMillis(5);

        /** Values computed from a large constant, each in float32: some exports chain several. */
        private static final int COPIES = 8;

        private Duration time(Program program) {
            return time.plus(EACH_NODE.multipliedBy(program.ops().size()));
        }

        private long bytes(Program program) {
            long elements = 0;
            for (Value constant : program.constants().values()) {
                elements += constant.constant().bytes() == null
                        ? 0
                        : constant.constant().elements();
            }
            return bytes + COPIES * Float.BYTES * elements;
        }
    }

    /** Positions of inputs beside the rows, in either run; of a model without rows, such as one of sound, many. */
    private static final int[] CONTEXT = {11, 17};

    private static final int[] LONG_CONTEXT = {3001, 4507};

    /**
     * Sizes to try: with a past; without one, because some kernels reject several tokens after a past; one token after
     * a past; and batch 1, because some exports fix it. The numbers are pairwise different, so that their sums and
     * products are too.
     */
    private static final List<List<RowSize>> ATTEMPTS = List.of(
            sizes(2, 3, 4, 3, 5, 8),
            sizes(2, 3, 0, 3, 5, 0),
            sizes(1, 3, 4, 1, 5, 8),
            sizes(1, 3, 0, 1, 5, 0),
            sizes(1, 1, 4, 1, 1, 8),
            sizes(1, 1, 0, 1, 1, 0));

    private static List<RowSize> sizes(int batch, int length, int past, int batch2, int length2, int past2) {
        return List.of(new RowSize(batch, length, past, CONTEXT[0]), new RowSize(batch2, length2, past2, CONTEXT[1]));
    }

    private final Map<Value, long[][]> shapes = new HashMap<>();
    private final Map<Value, long[][]> contents = new HashMap<>();
    private final Map<Value, DType> dtypes = new HashMap<>();

    private final Budget budget;
    private final long start = System.nanoTime();

    private Trace(Budget budget) {
        this.budget = budget;
    }

    /**
     * Traces {@code program}. Weights are not read: large constants are replaced by computed ones of the same shape.
     *
     * @throws UserException when ONNX Runtime cannot run the model at any of the sizes, or when that takes too much
     *     time or memory
     */
    public static Trace of(Program program, OnnxRuntime runtime, Log log) {
        return of(program, runtime, log, Budget.USUAL);
    }

    static Trace of(Program program, OnnxRuntime runtime, Log log, Budget budget) {
        Trace trace = new Trace(budget);
        for (TraceGraph graph : TraceGraph.variants(program)) {
            trace.run(program, graph, runtime, log);
        }
        return trace;
    }

    private void run(Program program, TraceGraph graph, OnnxRuntime runtime, Log log) {
        UserException failure = null;
        long bytes = budget.bytes(program);
        try (Session session = runtime.openWithin(graph.serialized(), bytes)) {
            ModelInterface decoder = ModelInterface.of(program.model().graph());
            Map<String, Long> hints = graph.extentHints();
            for (List<RowSize> attempt : attempts(decoder)) {
                try {
                    for (int run = 0; run < 2; run++) {
                        Map<String, HostTensor> inputs = feeds(decoder, attempt.get(run), hints);
                        for (Value input : program.inputs()) {
                            record(input, run, inputs.get(input.name()));
                        }
                        try (Outputs outputs =
                                session.run(inputs, graph.valueNames().keySet(), remaining(program))) {
                            collect(graph, outputs, run);
                        }
                    }
                    log.debug("traced at " + attempt);
                    return;
                } catch (TimeLimitException | OutOfMemoryException e) {
                    throw overBudget(program, bytes, e);
                } catch (UserException e) {
                    failure = failure == null ? e : failure;
                    log.debug("trace at " + attempt + " failed: " + e.getMessage());
                }
            }
        }
        throw new UserException(
                "ONNX Runtime cannot run " + program.model().source() + ": "
                        + (failure == null ? "" : failure.getMessage()),
                failure);
    }

    private Duration remaining(Program program) {
        return Duration.ofNanos(Math.max(1, budget.time(program).toNanos() - (System.nanoTime() - start)));
    }

    private UserException overBudget(Program program, long bytes, UserException failure) {
        String limit = failure instanceof TimeLimitException
                ? "%d seconds, so it may be endless; look for a Loop without an end"
                        .formatted(budget.time(program).toSeconds())
                : "%.1f GiB%s; look for an Expand, a ConstantOfShape or a Tile to a large extent"
                        .formatted(bytes / (double) (1 << 30), place(failure.getMessage()));
        return new UserException(
                "a run of %s with a few tokens, which finds its shapes, takes more than %s"
                        .formatted(program.model().source(), limit),
                failure);
    }

    /** The node that failed and what it requested; empty when the runtime does not say. */
    private static String place(String message) {
        Matcher node = REQUEST.matcher(message);
        return node.find() ? ", " + node.group() : "";
    }

    /** The sizes to try, with the numbers that the graph fixes. */
    private static Set<List<RowSize>> attempts(ModelInterface decoder) {
        Set<List<RowSize>> attempts = new LinkedHashSet<>();
        for (List<RowSize> attempt : ATTEMPTS) {
            List<RowSize> sizes = new ArrayList<>();
            for (int run = 0; run < 2; run++) {
                RowSize size = attempt.get(run);
                sizes.add(new RowSize(
                        decoder.fixedBatch().orElse(size.batch()),
                        decoder.fixedLength().orElse(size.length()),
                        decoder.states().isEmpty() ? 0 : size.past(),
                        decoder.rows().isPresent() ? size.context() : LONG_CONTEXT[run]));
            }
            attempts.add(sizes);
        }
        return attempts;
    }

    private static Map<String, HostTensor> feeds(ModelInterface decoder, RowSize size, Map<String, Long> hints) {
        Map<String, HostTensor> feeds = decoder.feeds(new long[size.batch()][size.length()], size);
        for (State state : decoder.states()) {
            int headSize = hints.getOrDefault(state.input().name(), 0L).intValue();
            if (headSize == 0 && state.hasUnknownExtent()) {
                throw new UserException("the head size of the cache input \""
                        + state.input().name() + "\" is unknown; export it with a fixed extent there");
            }
            feeds.put(state.input().name(), state.initial(size, headSize));
        }
        return feeds;
    }

    private void record(Value value, int run, HostTensor tensor) {
        if (tensor != null) {
            shapes.computeIfAbsent(value, key -> new long[2][])[run] = tensor.shape();
            dtypes.put(value, tensor.dtype());
        }
    }

    private void collect(TraceGraph graph, Outputs outputs, int run) {
        graph.valueNames().forEach((name, value) -> {
            if (!outputs.has(name)) {
                return;
            }
            long[] shape = outputs.shape(name);
            shapes.computeIfAbsent(value, key -> new long[2][])[run] = shape;
            DType dtype = outputs.dtype(name);
            dtypes.put(value, dtype);
            boolean small = Tensor.elements(shape) <= MAX_ELEMENTS;
            if (small && (dtype.isIndex() || dtype == DType.BOOL)) {
                contents.computeIfAbsent(value, key -> new long[2][])[run] =
                        outputs.tensor(name).toLongs();
            }
        });
    }

    /** The shape in the given run (0 or 1); null when the value was not computed or is not a tensor. */
    public long[] shape(Value value, int run) {
        Tensor stored = TraceGraph.stored(value);
        if (stored != null) {
            return stored.shape();
        }
        long[][] pair = shapes.get(value);
        return pair == null ? null : pair[run];
    }

    /** Whether the shape is known in both runs, with equal rank. */
    public boolean isKnown(Value value) {
        return shape(value, 0) != null && shape(value, 1) != null && shape(value, 0).length == shape(value, 1).length;
    }

    /** The elements of a small integer or boolean value in the given run (0 or 1); null for any other value. */
    public long[] contents(Value value, int run) {
        if (value.constant() != null) {
            boolean integers =
                    value.constant().dtype().isIndex() || value.constant().dtype() == DType.BOOL;
            return integers
                            && value.constant().bytes() != null
                            && value.constant().elements() <= MAX_ELEMENTS
                    ? value.constant().toLongs()
                    : null;
        }
        long[][] pair = contents.get(value);
        return pair == null ? null : pair[run];
    }

    /** The element type, with half-precision types of computed values widened; {@link DType#UNDEFINED} when unknown. */
    public DType dtype(Value value) {
        if (value.constant() != null) {
            return value.constant().dtype();
        }
        return TraceGraph.stored(value) != null
                ? Widening.widen(TraceGraph.stored(value).dtype())
                : dtypes.getOrDefault(value, DType.UNDEFINED);
    }
}
