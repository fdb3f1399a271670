// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Floats;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;

/**
 * Finds the node at which a model's values stop being finite. It is used after a failure was detected: it runs the
 * model again with every value as an output, on the shortest prefix that shows the failure.
 */
public final class NonFinite {
    /** Number of tokens by which a message identifies a row. */
    private static final int SHOWN = 6;

    private final Program program;
    private final Set<Value> bad = new HashSet<>();
    private final Set<Value> half = new HashSet<>();

    private NonFinite(Program program) {
        this.program = program;
    }

    /** The beginning of a row for a message, to find the row in a file: {@code beginning 1, 403, 407}. */
    public static String beginning(long[] row) {
        return Arrays.stream(row)
                .limit(SHOWN)
                .mapToObj(Long::toString)
                .collect(Collectors.joining(", ", "beginning ", row.length > SHOWN ? ", ..." : ""));
    }

    /**
     * The end of a sentence about non-finite logits or loss: the node at which they begin, and a remedy.
     *
     * @param row the tokens on which they occur
     */
    public static String origin(Model model, OnnxRuntime runtime, long[] row) {
        try {
            NonFinite found = new NonFinite(Program.of(model));
            Op op = found.run(runtime, row);
            return op == null ? advice() : found.describe(op);
        } catch (UserException e) {
            // The model may not run with these outputs. The failure itself is still reported.
            return advice();
        }
    }

    private static String advice() {
        return "; its weights or its precision overflow, so try it in float32";
    }

    private Op run(OnnxRuntime runtime, long[] row) {
        Model model = program.model();
        ModelInterface decoder = ModelInterface.of(model.graph());
        Map<String, Value> values = values();
        try (Session session = runtime.open(model.withGraph(withOutputs(model.graph(), values.keySet())), false)) {
            Set<String> wanted = session.outputs().stream()
                    .filter(output -> output.dtype().isFloat() && values.containsKey(output.name()))
                    .map(Session.Io::name)
                    .collect(Collectors.toCollection(LinkedHashSet::new));
            session.outputs().stream()
                    .filter(output -> wanted.contains(output.name()) && isHalf(output.dtype()))
                    .forEach(output -> half.add(values.get(output.name())));
            Value logits = values.get(decoder.requireLogits().name());
            for (int length = 1; ; length = Math.min(2 * length, row.length)) {
                Map<String, HostTensor> feeds = decoder.wholeRows(new long[][] {Arrays.copyOf(row, length)});
                try (Outputs outputs = session.run(feeds, wanted)) {
                    recordBad(values, wanted, outputs);
                }
                if (bad.contains(logits)) {
                    return firstBefore(logits);
                }
                if (length >= row.length) {
                    return null;
                }
                bad.clear();
            }
        }
    }

    /** Values that nodes of the main graph produce, by name, in order of execution. */
    private Map<String, Value> values() {
        Map<String, Value> values = new LinkedHashMap<>();
        for (Op op : program.ops()) {
            for (Value output : op.outputs()) {
                if (output != null && op.branch().isEmpty()) {
                    values.put(output.name(), output);
                }
            }
        }
        return values;
    }

    private static Graph withOutputs(Graph graph, Set<String> names) {
        List<ValueInfo> outputs = new ArrayList<>(graph.outputs());
        Set<String> more = new LinkedHashSet<>(names);
        outputs.forEach(output -> more.remove(output.name()));
        more.forEach(name -> outputs.add(new ValueInfo(name, DType.UNDEFINED, null, new byte[0])));
        return graph.withInterface(graph.inputs(), outputs);
    }

    /** Records which values contain bad elements, in order of execution. */
    private void recordBad(Map<String, Value> values, Set<String> wanted, Outputs outputs) {
        for (Value value : values.values()) {
            if (wanted.contains(value.name())) {
                boolean computed =
                        isLinear(value.producer()) || badInput(value.producer()).isPresent();
                FloatBuffer floats = outputs.tensor(value.name()).asFloats();
                while (floats.hasRemaining() && !bad.contains(value)) {
                    if (isBad(floats.get(), computed)) {
                        bad.add(value);
                    }
                }
            }
        }
    }

    private static boolean isLinear(Op op) {
        return op.node().is("MatMul") || op.node().is("Gemm");
    }

    /** Masks contain -Infinity on purpose. Outputs of linear layers, and values computed from bad ones, should not. */
    private static boolean isBad(float number, boolean computed) {
        return Float.isNaN(number) || number == Float.POSITIVE_INFINITY || computed && Float.isInfinite(number);
    }

    /** The operator application that first produces bad values from good inputs. */
    private Op firstBefore(Value value) {
        Op op = value.producer();
        for (Optional<Value> earlier = badInput(op); earlier.isPresent(); earlier = badInput(op)) {
            op = earlier.get().producer();
        }
        return op;
    }

    private Optional<Value> badInput(Op op) {
        return op.inputs().stream()
                .filter(input -> input != null && bad.contains(input))
                .findFirst();
    }

    private String describe(Op op) {
        String node = ", from node " + op.node().label() + " on";
        for (Value input : op.inputs()) {
            if (input != null && input.constant() != null && hasNonFinite(input.constant())) {
                return node + ", whose weight \"" + input.name()
                        + "\" holds NaN or an infinite number; repair that weight, or export the model again";
            }
        }
        return node
                + (op.outputs().stream().anyMatch(half::contains)
                        ? ", where numbers overflow half precision; export the model in float32"
                        : ", where numbers overflow; the weights before it are too large");
    }

    private static boolean isHalf(DType dtype) {
        return dtype == DType.FLOAT16 || dtype == DType.BFLOAT16;
    }

    private static boolean hasNonFinite(Tensor tensor) {
        if (!tensor.dtype().isFloat() || tensor.bytes() == null || tensor.elements() < 2) {
            return false;
        }
        boolean[] nonFinite = new boolean[1];
        Floats.forEachBlock(tensor, (first, values, count) -> {
            for (int i = 0; i < count && !nonFinite[0]; i++) {
                nonFinite[0] = !Float.isFinite(values[i]);
            }
        });
        return nonFinite[0];
    }
}
