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
import io.onnxprune.runtime.DecoderInterface;
import io.onnxprune.runtime.HostTensor;
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
 * Where the numbers of a model stop being finite. Meant for a failure that is certain already: it runs the model anew with
 * every value as an output, on as few tokens as show it.
 */
public final class NonFinite {
    /** Tokens by which a message tells a row from others. */
    private static final int SHOWN = 6;

    private final Program program;
    private final Set<Value> bad = new HashSet<>();
    private final Set<Value> half = new HashSet<>();

    private NonFinite(Program program) {
        this.program = program;
    }

    /** What a row begins with, to find it in a file: {@code beginning 1, 403, 407}. */
    public static String beginning(long[] row) {
        return Arrays.stream(row)
                .limit(SHOWN)
                .mapToObj(Long::toString)
                .collect(Collectors.joining(", ", "beginning ", row.length > SHOWN ? ", ..." : ""));
    }

    /**
     * The end of a sentence that says that logits or loss are not finite: at which node it begins, and what to do.
     *
     * @param row the tokens on which it is so
     */
    public static String origin(Model model, OnnxRuntime runtime, long[] row) {
        try {
            NonFinite found = new NonFinite(Program.of(model));
            Op op = found.run(runtime, row);
            return op == null ? advice() : found.describe(op);
        } catch (UserException e) {
            // The model may not run like this; that it is not finite is what there is to say.
            return advice();
        }
    }

    private static String advice() {
        return "; its weights or its precision overflow, so try it in float32";
    }

    private Op run(OnnxRuntime runtime, long[] row) {
        Model model = program.model();
        DecoderInterface decoder = DecoderInterface.of(model.graph());
        Map<String, Value> values = values();
        try (Session session = runtime.open(model.withGraph(withOutputs(model.graph(), values.keySet())), false)) {
            Set<String> wanted = session.outputs().stream()
                    .filter(output -> output.dtype().isFloat() && values.containsKey(output.name()))
                    .map(Session.Io::name)
                    .collect(Collectors.toCollection(LinkedHashSet::new));
            session.outputs().stream()
                    .filter(output -> wanted.contains(output.name()) && isHalf(output.dtype()))
                    .forEach(output -> half.add(values.get(output.name())));
            Value logits = values.get(decoder.logits().name());
            for (int length = 1; ; length = Math.min(2 * length, row.length)) {
                Map<String, HostTensor> feeds = decoder.wholeRows(new long[][] {Arrays.copyOf(row, length)});
                try (Outputs outputs = session.run(feeds, wanted)) {
                    note(values, wanted, outputs);
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

    /** What nodes of the main graph compute, by name, in order of execution. */
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

    /** Notes what is not as it should be, in order of execution. */
    private void note(Map<String, Value> values, Set<String> wanted, Outputs outputs) {
        for (Value value : values.values()) {
            if (wanted.contains(value.name())) {
                boolean computed = isProduct(value.producer())
                        || badInput(value.producer()).isPresent();
                FloatBuffer floats = outputs.tensor(value.name()).asFloats();
                while (floats.hasRemaining() && !bad.contains(value)) {
                    if (isBad(floats.get(), computed)) {
                        bad.add(value);
                    }
                }
            }
        }
    }

    private static boolean isProduct(Op op) {
        return op.node().is("MatMul") || op.node().is("Gemm");
    }

    /** Masks hold -Infinity by intent; products, and what is computed from bad numbers, do not. */
    private static boolean isBad(float number, boolean computed) {
        return Float.isNaN(number) || number == Float.POSITIVE_INFINITY || computed && Float.isInfinite(number);
    }

    /** The application that makes a number that is not finite from numbers that are. */
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
            if (input != null && input.constant() != null && isBroken(input.constant())) {
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

    private static boolean isBroken(Tensor tensor) {
        if (!tensor.dtype().isFloat() || tensor.bytes() == null || tensor.elements() < 2) {
            return false;
        }
        boolean[] broken = new boolean[1];
        Floats.forEachBlock(tensor, (first, values, count) -> {
            for (int i = 0; i < count && !broken[0]; i++) {
                broken[0] = !Float.isFinite(values[i]);
            }
        });
        return broken[0];
    }
}
