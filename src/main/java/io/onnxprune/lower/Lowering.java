// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.TensorSequences;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.ir.Widening;
import io.onnxprune.onnx.FunctionInliner;
import io.onnxprune.runtime.LastPosition;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.State;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * Lowers a model to the form that calibration and differentiation run:
 * <ul>
 * <li>no model-local functions and no {@code If}; the branch of a run without a past is inlined
 * <li>constants as initializers with the names of their values
 * <li>float32 instead of half precision; half-precision weights are cast at their use. Float64 is kept, except for the
 *     logits
 * <li>operators in the form of opset {@value OpsetForms#TARGET} or newer
 * <li>fused and contrib operators decomposed into standard ones, for a past of length 0
 * <li>no unused caches
 * </ul>
 *
 * <p>Inputs, outputs, initializers and the values between operators keep their names, and weights are not copied.
 */
public final class Lowering {
    /** Constants with more elements keep their half-precision type and are cast at their use. */
    private static final long SMALL = 4096;

    private static final String PREFIX = "onnx_prune_lowered_";

    private final Program program;
    private final Trace trace;
    private final int length;
    private final GraphBuilder graph;
    private final Map<String, String> shared = new HashMap<>();
    private final Set<String> nodeNames = new HashSet<>();

    private Lowering(Program program, Trace trace, int length) {
        this.program = program;
        this.trace = trace;
        this.length = length;
        Set<String> taken = GraphBuilder.names(program.model().graph());
        this.graph = new GraphBuilder(PREFIX, taken);
    }

    /**
     * The lowered form of a model, for rows of {@code length} tokens without a past. It gives logits for all positions,
     * also where the model selects the last one.
     *
     * @param log receives a note when the quantisation of activations is left out
     * @throws UserException when the branch that an {@code If} takes depends on the tokens, the operator set is too
     *     old, or ONNX Runtime cannot run the model
     */
    public static Model lower(Model model, OnnxRuntime runtime, int length, Log log) {
        if (model.opset() < OpsetForms.OLDEST) {
            throw new UserException("%s is of opset %d, which is older than %d; export it again with a newer one"
                    .formatted(model.source(), model.opset(), OpsetForms.OLDEST));
        }
        Model flat = BranchSelection.select(
                TensorSequences.replace(FunctionInliner.inline(model), runtime, log), runtime, length);
        flat = Widening.widen(withConstantsLifted(flat));
        Program program = Program.of(flat);
        Trace trace = Trace.of(program, runtime, log);
        Optional<Model> whole = selectsPositions(program, trace) ? LastPosition.removed(flat) : Optional.empty();
        if (whole.isPresent()) {
            program = Program.of(whole.get());
            trace = Trace.of(program, runtime, log);
        }
        Model lowered = new Lowering(program, trace, length).lowered();
        if (rounds(flat) && !rounds(lowered)) {
            log.info("the model quantises its activations to 8 bits at run time; calibration leaves this rounding out");
        }
        return lowered;
    }

    /**
     * Whether lowering created this name of a value or node. The same name may denote another value in another lowered
     * model.
     */
    public static boolean isNew(String name) {
        return name.startsWith(PREFIX);
    }

    /** Whether there are logits for some positions of the rows only. */
    private static boolean selectsPositions(Program program, Trace trace) {
        ModelInterface graph = ModelInterface.of(program.model().graph());
        if (graph.logits().isEmpty() || graph.rows().isEmpty()) {
            return false;
        }
        long[] logits = trace.shape(program.output(graph.requireLogits().name()), 1);
        long[] rows = trace.shape(program.input(graph.requireRows().name()), 1);
        return logits != null && (logits.length != 3 || logits[1] != rows[1]);
    }

    private static boolean rounds(Model model) {
        return model.graph().nodes().stream().anyMatch(node -> node.op().startsWith("DynamicQuantize"));
    }

    /** Replaces Constant nodes by initializers, and small half-precision constants by float32. */
    private static Model withConstantsLifted(Model model) {
        Map<String, Tensor> initializers = new LinkedHashMap<>(model.graph().initializers());
        List<Node> nodes = new ArrayList<>();
        for (Op op : Program.of(model).ops()) {
            Value value = op.output(0);
            Tensor tensor = op.node().is("Constant") && value != null ? value.constant() : null;
            if (tensor != null && tensor.bytes() != null) {
                initializers.put(value.name(), tensor.elements() <= SMALL ? Widening.widen(tensor) : tensor);
            } else {
                nodes.add(op.node());
            }
        }
        return model.withGraph(model.graph().withNodes(nodes).withInitializers(initializers));
    }

    private Model lowered() {
        Model model = program.model();
        long opset = model.opset();
        for (Op op : program.ops()) {
            lower(op, opset);
        }
        Map<String, Tensor> initializers = new LinkedHashMap<>(model.graph().initializers());
        initializers.putAll(graph.initializers());
        List<ValueInfo> outputs = withEndInFloat();
        Graph lowered = model.graph()
                .withInterface(program.inputs().stream().map(this::declared).toList(), outputs)
                .withNodes(graph.nodes())
                .withInitializers(initializers)
                .withValues(List.of());
        Map<String, Long> opsets = new LinkedHashMap<>(model.opsets());
        opsets.put("", Math.max(opset, OpsetForms.TARGET));
        return new Model(
                Math.max(model.irVersion(), OpsetForms.IR_VERSION),
                opsets,
                withoutDeadCode(withoutUnusedCaches(lowered)),
                model.metadata(),
                model.externalData(),
                model.source(),
                model.rest());
    }

    /** The graph outputs; the end of a float64 network is rounded to float32, the type of the loss. */
    private List<ValueInfo> withEndInFloat() {
        List<ValueInfo> outputs = program.model().graph().outputs();
        String end = ModelInterface.of(program.model().graph()).end().name();
        List<ValueInfo> changed = new ArrayList<>();
        for (ValueInfo output : outputs) {
            boolean isDouble = output.name().equals(end) && output.dtype() == DType.DOUBLE;
            changed.add(isDouble ? output.withDType(DType.FLOAT) : output);
            if (isDouble) {
                Map<String, String> renamed = Map.of(end, graph.freshName());
                graph.nodes().replaceAll(node -> Renaming.all(node, renamed));
                Attribute to = new Attribute.Int(DType.FLOAT.code());
                graph.add(Node.of(end, "Cast", List.of(renamed.get(end)), List.of(end), Map.of("to", to)));
            }
        }
        return changed;
    }

    /**
     * A graph input, with an extent that is only known from the operator that consumes it and that may be missing in
     * the lowered form.
     */
    private ValueInfo declared(Value input) {
        ValueInfo info = input.info();
        long[] first = trace.shape(input, 0);
        long[] second = trace.shape(input, 1);
        boolean known = first != null
                && second != null
                && info.shape() != null
                && first.length == info.shape().size();
        if (!known || !info.dtype().isFloat()) {
            return info;
        }
        List<ValueInfo.Extent> extents = new ArrayList<>(info.shape());
        // Past and batch come before the last axis. A past of 0 or 1 tokens in both runs does not give an extent.
        int last = extents.size() - 1;
        if (last > 0 && !extents.get(last).isKnown() && first[last] == second[last] && first[last] > 1) {
            extents.set(last, ValueInfo.Extent.of(first[last]));
        }
        return info.withShape(extents);
    }

    private void lower(Op op, long opset) {
        int start = graph.nodes().size();
        RewriteContext context = new RewriteContext(op, usedResults(op), trace, graph, shared, length);
        if (!OpsetForms.apply(context, opset) && !Decompositions.apply(context)) {
            graph.add(op.node());
        }
        label(op, start);
    }

    /** The positions of the results that have a consumer or are graph outputs. */
    private Set<Integer> usedResults(Op op) {
        Set<Integer> used = new HashSet<>();
        for (int i = 0; i < op.outputs().size(); i++) {
            Value value = op.output(i);
            if (value != null && (!value.uses().isEmpty() || program.outputs().contains(value))) {
                used.add(i);
            }
        }
        return used;
    }

    /** Names new nodes after the node that they replace, so that messages refer to it. */
    private void label(Op replaced, int start) {
        String name = replaced.node().name();
        for (int i = start; i < graph.nodes().size(); i++) {
            Node node = graph.nodes().get(i);
            String base = name.isEmpty() || node.name().equals(name) ? node.name() : name + "/" + node.op();
            String unique = base;
            for (int count = 1; !base.isEmpty() && !nodeNames.add(unique); count++) {
                unique = base + "_" + count;
            }
            graph.nodes().set(i, node.withName(unique));
        }
    }

    /** Drops cache inputs without a consumer, together with their outputs. */
    private static Graph withoutUnusedCaches(Graph graph) {
        Set<String> used = new HashSet<>();
        graph.nodes().forEach(node -> used.addAll(node.reads()));
        Set<String> dropped = new HashSet<>();
        for (State state : ModelInterface.of(graph).states()) {
            if (!used.contains(state.input().name())) {
                dropped.add(state.input().name());
                dropped.add(state.output());
            }
        }
        return graph.withInterface(without(graph.inputs(), dropped), without(graph.outputs(), dropped));
    }

    private static List<ValueInfo> without(List<ValueInfo> values, Set<String> dropped) {
        return values.stream().filter(value -> !dropped.contains(value.name())).toList();
    }

    /** The graph without nodes and initializers that no output depends on. */
    private static Graph withoutDeadCode(Graph graph) {
        Set<String> live = graph.needed();
        List<Node> nodes = graph.nodes().stream()
                .filter(node -> node.outputs().stream().anyMatch(live::contains))
                .toList();
        Map<String, Tensor> initializers = new LinkedHashMap<>(graph.initializers());
        initializers.keySet().retainAll(live);
        return graph.withNodes(nodes).withInitializers(initializers);
    }
}
