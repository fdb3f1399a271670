// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.RuntimeTensor;
import io.onnxprune.runtime.Session;
import java.nio.ByteBuffer;
import java.nio.DoubleBuffer;
import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.LongStream;
import org.jspecify.annotations.Nullable;

/**
 * Reduces complete sums of gradients in the runtime. One small graph serves all initializers of the same rank and type:
 *
 * <pre>
 *   weights            → Cast → Sub(zeros) ─┐
 *   gradients → Slice → Cast ───────────────┼→ term → ReduceSum, for each axis
 *   squares   → Slice → Cast ───────────────┘
 * </pre>
 *
 * It computes in float64, as {@code AxisSums} does. It runs over blocks of the first axis, because a float64 value takes
 * twice the memory of the gradients.
 */
final class GradientReduction implements AutoCloseable {
    /** The number of elements of a block. A block has at least one index of the first axis. */
    private static final long BLOCK = 1L << 23;

    /** The same on a device, which starts each operator later and works on it faster: about 1 GB in all. */
    private static final long DEVICE_BLOCK = 1L << 25;

    private static final String WEIGHTS = "weights";
    private static final String ZEROS = "zeros";
    private static final String GRADIENTS = "gradients";
    private static final String SQUARES = "squares";
    private static final String FROM = "from";
    private static final String TO = "to";

    private final OnnxRuntime runtime;
    private final Model lowered;
    private final long block;
    private final Map<Form, Reducer> reducers = new HashMap<>();

    /** What initializers have in common if the same graph serves them. */
    private record Form(AxisReduction.Term term, DType dtype, int rank, boolean zeros, boolean squares, BitSet axes) {}

    /** An opened graph with the names of its outputs, in the order of the axes. */
    private record Reducer(Session session, Set<String> inputs, List<String> outputs) {}

    /**
     * Creates a reduction. Nothing is opened until it is needed.
     *
     * @param lowered a model with the operator set of the graphs
     */
    GradientReduction(OnnxRuntime runtime, Model lowered) {
        this(runtime, lowered, runtime.device().isPresent() ? DEVICE_BLOCK : BLOCK);
    }

    GradientReduction(OnnxRuntime runtime, Model lowered, long block) {
        this.runtime = runtime;
        this.lowered = lowered;
        this.block = block;
    }

    /**
     * The sums of one initializer.
     *
     * @param squares null unless they were requested
     */
    Sums sums(RuntimeTensor gradients, @Nullable RuntimeTensor squares) {
        return new Sums(gradients, squares);
    }

    /** The sums of one initializer, which can be reduced. */
    final class Sums implements GradientSums {
        private final RuntimeTensor gradients;
        private final @Nullable RuntimeTensor squares;

        private Sums(RuntimeTensor gradients, @Nullable RuntimeTensor squares) {
            this.gradients = gradients;
            this.squares = squares;
        }

        @Override
        public FloatBuffer sum() {
            return gradients.toHost().asFloats();
        }

        @Override
        public @Nullable FloatBuffer squares() {
            return squares == null ? null : squares.toHost().asFloats();
        }

        @Override
        public Optional<double[][]> along(AxisReduction reduction) {
            return runtime.device().isPresent() ? Optional.of(reduce(reduction)) : Optional.empty();
        }

        /** Computes {@link #along} in the runtime, wherever the sums are. */
        double[][] reduce(AxisReduction reduction) {
            long[] shape = gradients.shape();
            if (!Arrays.equals(shape, reduction.weights().shape())) {
                throw new IllegalStateException(
                        "the gradients are " + gradients + ", but the weights are " + reduction.weights());
            }
            DType dtype = reduction.weights().dtype();
            boolean zeros = Arrays.stream(reduction.zeros()).anyMatch(zero -> zero != 0);
            Form form = new Form(reduction.term(), dtype, shape.length, zeros, squares != null, reduction.axes());
            Reducer reducer = reducers.computeIfAbsent(form, GradientReduction.this::open);
            double[][] found = new double[shape.length][];
            reduction.axes().stream().forEach(axis -> found[axis] = new double[Math.toIntExact(shape[axis])]);
            ByteBuffer weights = reduction.weights().bytes().direct();
            long width = Math.max(1, reduction.weights().elements() / Math.max(1, shape[0]));
            int step = (int) Math.min(Integer.MAX_VALUE, Math.max(1, block / width));
            for (int from = 0; from < shape[0]; from += step) {
                int count = (int) Math.min(step, shape[0] - from);
                Map<String, RuntimeTensor> feeds = new HashMap<>();
                long[] extents = shape.clone();
                extents[0] = count;
                int start = Math.toIntExact(dtype.bytes(from * width));
                int length = Math.toIntExact(dtype.bytes(count * width));
                feeds.put(WEIGHTS, new HostTensor(dtype, extents, weights.slice(start, length)));
                feeds.put(ZEROS, zeros(reduction, from, count));
                feeds.put(GRADIENTS, gradients);
                feeds.put(SQUARES, squares);
                feeds.put(FROM, HostTensor.ofInt64(new long[] {1}, from));
                feeds.put(TO, HostTensor.ofInt64(new long[] {1}, from + (long) count));
                feeds.keySet().retainAll(reducer.inputs);
                add(reducer, feeds, from, found);
            }
            return found;
        }
    }

    /** Adds the sums of one block. Only along the first axis does a block have sums of its own. */
    private static void add(Reducer reducer, Map<String, RuntimeTensor> feeds, int from, double[][] found) {
        try (Outputs outputs = reducer.session.runInto(feeds, Map.of(), reducer.outputs)) {
            int output = 0;
            for (int axis = 0; axis < found.length; axis++) {
                if (found[axis] != null) {
                    DoubleBuffer values = outputs.tensor(reducer.outputs.get(output++))
                            .bytes()
                            .asDoubleBuffer();
                    for (int index = axis == 0 ? from : 0; values.hasRemaining(); index++) {
                        found[axis][index] += values.get();
                    }
                }
            }
        }
    }

    /** The zeros of a block, in a shape that is broadcast. */
    private static HostTensor zeros(AxisReduction reduction, int from, int count) {
        long[] zeros = reduction.zeros();
        if (zeros.length > 1 && reduction.zeroAxis() == 0) {
            zeros = Arrays.copyOfRange(zeros, from, from + count);
        }
        long[] shape = new long[reduction.weights().rank()];
        Arrays.fill(shape, 1);
        shape[reduction.zeroAxis()] = zeros.length;
        HostTensor tensor = HostTensor.zeros(DType.DOUBLE, shape);
        tensor.bytes()
                .asDoubleBuffer()
                .put(Arrays.stream(zeros).asDoubleStream().toArray());
        return tensor;
    }

    private Reducer open(Form form) {
        Map<String, DType> inputs = new LinkedHashMap<>();
        inputs.put(WEIGHTS, form.dtype);
        inputs.put(GRADIENTS, DType.FLOAT);
        inputs.put(SQUARES, DType.FLOAT);
        inputs.put(FROM, DType.INT64);
        inputs.put(TO, DType.INT64);
        inputs.put(ZEROS, DType.DOUBLE);
        GraphBuilder builder = new GraphBuilder("reduction_", inputs.keySet());
        // Weights are float32 everywhere else.
        String weights = form.dtype == DType.DOUBLE ? cast(builder, WEIGHTS, DType.FLOAT) : WEIGHTS;
        weights = cast(builder, weights, DType.DOUBLE);
        if (form.zeros) {
            weights = builder.add("Sub", weights, ZEROS);
        }
        String squares = form.squares ? block(builder, SQUARES) : null;
        String term = form.term.append(builder, weights, block(builder, GRADIENTS), squares);
        List<String> outputs = new ArrayList<>();
        form.axes.stream().forEach(axis -> outputs.add(along(builder, term, axis, form.rank)));
        Graph all = graph(inputs, outputs, builder, builder.nodes());
        // A term need not use both the gradients and the squares.
        Set<String> needed = all.needed();
        inputs.keySet().retainAll(needed);
        List<Node> nodes = builder.nodes().stream()
                .filter(node -> needed.contains(node.outputs().get(0)))
                .toList();
        Model model = lowered.withGraph(graph(inputs, outputs, builder, nodes));
        Session session =
                runtime.device().isPresent() ? runtime.open(model, runtime.weights(0)) : runtime.open(model, true);
        return new Reducer(session, inputs.keySet(), outputs);
    }

    private static Graph graph(
            Map<String, DType> inputs, List<String> outputs, GraphBuilder builder, List<Node> nodes) {
        List<ValueInfo> given = new ArrayList<>();
        inputs.forEach((name, dtype) -> given.add(Segment.declare(name, dtype)));
        List<ValueInfo> results = outputs.stream()
                .map(name -> Segment.declare(name, DType.DOUBLE))
                .toList();
        return new Graph("reduction", given, results, List.of(), builder.initializers(), nodes, new byte[0]);
    }

    private static String along(GraphBuilder builder, String term, int axis, int rank) {
        long[] others = LongStream.range(0, rank).filter(other -> other != axis).toArray();
        // Without any axis, ReduceSum would sum over all.
        return others.length == 0
                ? builder.add("Identity", term)
                : builder.add(
                        "ReduceSum", List.of(term, builder.ints(others)), Map.of("keepdims", new Attribute.Int(0)));
    }

    private static String block(GraphBuilder builder, String sums) {
        return cast(builder, builder.add("Slice", sums, FROM, TO, builder.ints(0)), DType.DOUBLE);
    }

    private static String cast(GraphBuilder builder, String value, DType dtype) {
        return builder.add("Cast", List.of(value), Map.of("to", new Attribute.Int(dtype.code())));
    }

    @Override
    public void close() {
        reducers.values().forEach(reducer -> reducer.session.close());
    }
}
