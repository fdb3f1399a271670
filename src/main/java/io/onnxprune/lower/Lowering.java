// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
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
import io.onnxprune.runtime.DecoderInterface;
import io.onnxprune.runtime.OnnxRuntime;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Brings a model into the form that calibration and differentiation run:
 *
 * <ul>
 *   <li>no model-local functions and no {@code If}: the branch that a run without a past takes, inlined
 *   <li>constants as initializers under the names of their values
 *   <li>float32 where the model has a half precision; half weights are cast where they are read. Float64 stays, but for
 *       the logits
 *   <li>operators in the form of opset {@value OpsetForms#TARGET} or newer
 *   <li>fused and contrib operators as standard ones, for a past of length 0
 *   <li>no caches that nothing reads
 * </ul>
 *
 * Inputs, outputs, initializers and the values between operators keep their names, and weights are not copied.
 */
public final class Lowering {
    /** Constants of more elements stay in their half type and are cast where they are read. */
    private static final long SMALL = 4096;

    private static final String PREFIX = "onnx_prune_lowered_";

    private final Program program;
    private final Trace trace;
    private final GraphBuilder graph;
    private final Map<String, String> shared = new HashMap<>();
    private final Set<String> nodeNames = new HashSet<>();

    private Lowering(Program program, Trace trace) {
        this.program = program;
        this.trace = trace;
        Set<String> taken = GraphBuilder.names(program.model().graph());
        this.graph = new GraphBuilder(PREFIX, taken);
    }

    /**
     * The model as calibration runs it: rows of {@code length} tokens without a past.
     *
     * @throws UserException if the branch that an {@code If} takes depends on the tokens, the operator set is too old, or
     *     ONNX Runtime cannot run the model
     */
    public static Model lower(Model model, OnnxRuntime runtime, int length, Log log) {
        if (model.opset() < OpsetForms.OLDEST) {
            throw new UserException("%s is of opset %d, which is older than %d; export it again with a newer one"
                    .formatted(model.source(), model.opset(), OpsetForms.OLDEST));
        }
        Model flat = BranchSelection.select(FunctionInliner.inline(model), runtime, length);
        flat = Widening.widen(withConstantsLifted(flat));
        Program program = Program.of(flat);
        Model lowered = new Lowering(program, Trace.of(program, runtime, log)).lowered();
        if (rounds(flat) && !rounds(lowered)) {
            log.info("the model rounds its activations to 8 bits as it runs; calibration leaves that rounding out");
        }
        return lowered;
    }

    /** Whether lowering made up this name of a value or node: the same name may be another's in another form of the model. */
    public static boolean isNew(String name) {
        return name.startsWith(PREFIX);
    }

    private static boolean rounds(Model model) {
        return model.graph().nodes().stream().anyMatch(node -> node.is("DynamicQuantizeLinear"));
    }

    /** Constant nodes as initializers; half constants of a few elements in float32. */
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
        List<ValueInfo> outputs = withLogitsInFloat();
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
                withoutDeadCode(withoutUnreadCaches(lowered)),
                model.metadata(),
                model.externalData(),
                model.source(),
                model.rest());
    }

    /** The outputs; logits of float64 are rounded to float32, which the loss takes. */
    private List<ValueInfo> withLogitsInFloat() {
        List<ValueInfo> outputs = program.model().graph().outputs();
        String logits = DecoderInterface.of(program.model().graph()).logits().name();
        List<ValueInfo> changed = new ArrayList<>();
        for (ValueInfo output : outputs) {
            boolean wide = output.name().equals(logits) && output.dtype() == DType.DOUBLE;
            changed.add(wide ? output.withDType(DType.FLOAT) : output);
            if (wide) {
                Map<String, String> renamed = Map.of(logits, graph.freshName());
                graph.nodes().replaceAll(node -> Renaming.all(node, renamed));
                Attribute to = new Attribute.Int(DType.FLOAT.code());
                graph.add(Node.of(logits, "Cast", List.of(renamed.get(logits)), List.of(logits), Map.of("to", to)));
            }
        }
        return changed;
    }

    /** A graph input with the extents that only the operator reading it told, which may be gone in the lowered form. */
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
        // Past and batch come before the last axis; a single past of 0 tokens in both runs is no extent.
        int last = extents.size() - 1;
        if (last > 0 && !extents.get(last).isKnown() && first[last] == second[last] && first[last] > 1) {
            extents.set(last, ValueInfo.Extent.of(first[last]));
        }
        return info.withShape(extents);
    }

    private void lower(Op op, long opset) {
        int start = graph.nodes().size();
        RewriteContext site = new RewriteContext(op, readResults(op), trace, graph, shared);
        if (!OpsetForms.apply(site, opset) && !Decompositions.apply(site)) {
            graph.add(op.node());
        }
        label(op, start);
    }

    /** The positions of the results that somebody reads. */
    private Set<Integer> readResults(Op op) {
        Set<Integer> read = new HashSet<>();
        for (int i = 0; i < op.outputs().size(); i++) {
            Value value = op.output(i);
            if (value != null && (!value.uses().isEmpty() || program.outputs().contains(value))) {
                read.add(i);
            }
        }
        return read;
    }

    /** Names new nodes after the one that they replace, so that messages lead back to it. */
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

    /** Drops caches that nothing reads any more, together with the outputs that continue them. */
    private static Graph withoutUnreadCaches(Graph graph) {
        Set<String> read = new HashSet<>();
        graph.nodes().forEach(node -> read.addAll(node.reads()));
        Set<String> dropped = new HashSet<>();
        for (DecoderInterface.Cache cache : DecoderInterface.of(graph).caches()) {
            if (!read.contains(cache.input().name())) {
                dropped.add(cache.input().name());
                dropped.add(cache.output());
            }
        }
        return graph.withInterface(without(graph.inputs(), dropped), without(graph.outputs(), dropped));
    }

    private static List<ValueInfo> without(List<ValueInfo> values, Set<String> dropped) {
        return values.stream().filter(value -> !dropped.contains(value.name())).toList();
    }

    /** The graph without nodes that reach no output, and without initializers that only those read. */
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
