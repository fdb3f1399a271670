// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.autodiff.Backward;
import io.onnxprune.autodiff.CausalLmLoss;
import io.onnxprune.autodiff.DivergenceLoss;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.lower.ProductPrecision;
import io.onnxprune.onnx.SequenceInfo;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * The graphs for ONNX Runtime's training API: one that accumulates gradients, one of the loss only, and one of the
 * optimizer.
 */
final class TrainingGraph {
    /** Name of the input with the weight of each position in the loss, [batch, length]. */
    static final String WEIGHTS = "onnx_prune_training_weights";

    private static final String PREFIX = "onnx_prune_training_";
    private static final String CONTRIB = "com.microsoft";

    private final Model model;
    private final Map<String, Tensor> parameters;
    private final GraphBuilder builder;
    private final ModelInterface decoder;

    private TrainingGraph(Trainable trainable) {
        this.model = trainable.model();
        this.parameters = trainable.parameters();
        this.builder = new GraphBuilder(PREFIX, GraphBuilder.names(model.graph()));
        this.decoder = ModelInterface.of(model.graph());
    }

    /**
     * The training graph: the loss, and gradients that are added to buffers.
     *
     * @throws io.onnxprune.diag.UserException when an operator that a gradient passes has no derivative
     */
    static Model training(Trainable trainable, Optional<Teacher> teacher, OnnxRuntime runtime, Log log) {
        Map<String, Tensor> parameters = trainable.parameters();
        TrainingGraph graph = new TrainingGraph(trainable);
        Program program = Program.of(trainable.model());
        List<ValueInfo> inputs = new ArrayList<>();
        Loss loss = graph.loss(teacher, inputs);
        Value logits = program.output(graph.decoder.requireLogits().name());
        Set<Value> wanted = new LinkedHashSet<>();
        parameters.keySet().forEach(name -> wanted.add(program.initializers().get(name)));
        Trace trace = Trace.of(program, runtime, log);
        Map<Value, String> gradients =
                Backward.append(program.ops(), trace, Map.of(logits, loss.gradient()), wanted, graph.builder);
        List<ValueInfo> outputs = new ArrayList<>(List.of(loss.total()));
        List<ValueInfo> buffers = new ArrayList<>();
        String reset = "lazy_reset_grad";
        for (Value parameter : wanted) {
            String name = parameter.name();
            String buffer = name + "_grad.accumulation.buffer";
            String done = name + "_grad.accumulation.out";
            buffers.add(graph.declared(buffer, parameters.get(name)));
            outputs.add(new ValueInfo(done, DType.BOOL, List.of(ValueInfo.Extent.of(1)), new byte[0]));
            Node identity = Node.of(
                    name + "_grad", "Identity", List.of(gradients.get(parameter)), List.of(name + "_grad"), Map.of());
            graph.builder.add(identity);
            graph.builder.add(
                    contrib("InPlaceAccumulatorV2", List.of(buffer, name + "_grad", reset), List.of(done), Map.of()));
        }
        buffers.add(new ValueInfo(reset, DType.BOOL, List.of(ValueInfo.Extent.of(1)), new byte[0]));
        return ProductPrecision.of(
                graph.assembled(inputs, buffers, outputs),
                ProductPrecision.types(program.ops(), trace),
                Set.of(),
                runtime.options());
    }

    /**
     * The evaluation graph: the loss only. It is float32 in any precision, because its loss selects parameters and is
     * compared with that of the written model.
     */
    static Model evaluation(Trainable trainable, Optional<Teacher> teacher) {
        TrainingGraph graph = new TrainingGraph(trainable);
        List<ValueInfo> inputs = new ArrayList<>();
        Loss loss = graph.loss(teacher, inputs);
        return graph.assembled(inputs, List.of(), List.of(loss.total()));
    }

    /**
     * The training objective.
     *
     * @param total declaration of its value, a scalar
     * @param gradient name of its gradient by the logits
     */
    private record Loss(ValueInfo total, String gradient) {}

    private Loss loss(Optional<Teacher> teacher, List<ValueInfo> inputs) {
        String logits = decoder.requireLogits().name();
        CausalLmLoss data = CausalLmLoss.weighted(logits, decoder.requireRows().name(), WEIGHTS, builder);
        if (teacher.isEmpty()) {
            return new Loss(total(data.rows()), data.gradient());
        }
        DivergenceLoss distillation = DivergenceLoss.weighted(
                logits,
                teacher.get().append(builder, inputs),
                WEIGHTS,
                teacher.get().temperature(),
                builder);
        double weight = teacher.get().weight();
        return new Loss(
                total(mixed(data.rows(), distillation.rows(), weight)),
                mixed(data.gradient(), distillation.gradient(), weight));
    }

    private String mixed(String first, String second, double weight) {
        return weight == 1
                ? second
                : builder.add(
                        "Add",
                        builder.add("Mul", first, builder.scalar((float) (1 - weight))),
                        builder.add("Mul", second, builder.scalar((float) weight)));
    }

    private ValueInfo total(String rows) {
        String total = builder.add("ReduceSum", List.of(rows), Map.of("keepdims", new Attribute.Int(0)));
        return new ValueInfo(total, DType.FLOAT, List.of(), new byte[0]);
    }

    private ValueInfo declared(String name, Tensor like) {
        List<ValueInfo.Extent> extents = new ArrayList<>();
        for (long extent : like.shape()) {
            extents.add(ValueInfo.Extent.of(extent));
        }
        return new ValueInfo(name, DType.FLOAT, extents, new byte[0]);
    }

    /**
     * Assembles the graph.
     *
     * @param given inputs in addition to the model's own
     * @param buffers inputs that the runtime supplies after the parameters
     */
    private Model assembled(List<ValueInfo> given, List<ValueInfo> buffers, List<ValueInfo> outputs) {
        Map<String, Tensor> initializers = new LinkedHashMap<>(model.graph().initializers());
        initializers.putAll(builder.initializers());
        initializers.keySet().removeAll(parameters.keySet());
        boolean hasDropout = initializers.remove(Trainable.DROPOUT_SEED) != null;
        List<Node> nodes = new ArrayList<>(model.graph().nodes());
        nodes.addAll(builder.nodes());
        List<ValueInfo> user = new ArrayList<>(model.graph().givenInputs());
        user.add(new ValueInfo(
                WEIGHTS,
                DType.FLOAT,
                List.of(new ValueInfo.Extent(-1, "batch"), new ValueInfo.Extent(-1, "length")),
                new byte[0]));
        if (hasDropout) {
            user.add(new ValueInfo(Trainable.DROPOUT_SEED, DType.FLOAT, List.of(), new byte[0]));
        }
        user.addAll(given);
        List<ValueInfo> inputs = new ArrayList<>(user);
        parameters.forEach((name, tensor) -> inputs.add(declared(name, tensor)));
        inputs.addAll(buffers);
        Graph complete = new Graph("training", inputs, outputs, List.of(), initializers, nodes, new byte[0]);
        Set<String> needed = complete.needed();
        nodes.removeIf(node -> node.outputs().stream().noneMatch(needed::contains));
        initializers.keySet().retainAll(needed);
        inputs.removeIf(input -> !needed.contains(input.name()));
        Map<String, Long> opsets = new LinkedHashMap<>(model.opsets());
        opsets.putIfAbsent(CONTRIB, 1L);
        Graph graph = new Graph("training", inputs, outputs, List.of(), initializers, nodes, new byte[0]);
        return new Model(model.irVersion(), opsets, graph, Map.of(), false, model.source(), new byte[0]);
    }

    /**
     * The optimizer graph: AdamW (Loshchilov and Hutter, arXiv 1711.05101) after clipping of the gradient norm.
     *
     * @param like a model with the opset and IR version to use
     * @param clip maximal norm of all gradients together; 0 for no clipping
     */
    static Model optimizer(Model like, double weightDecay, double clip) {
        List<Node> nodes = new ArrayList<>();
        String gradients = "gradients";
        if (clip > 0) {
            nodes.add(contrib(
                    "InplaceClipGradNorm",
                    List.of(gradients),
                    List.of("clipped"),
                    Map.of("max_norm", new Attribute.Real((float) clip))));
            gradients = "clipped";
        }
        nodes.add(contrib(
                "AdamWOptimizer",
                List.of("learning_rate", "step", "params", gradients, "first_order_moments", "second_order_moments"),
                List.of("updated_flag"),
                Map.of(
                        "alpha", new Attribute.Real(0.9f),
                        "beta", new Attribute.Real(0.999f),
                        "epsilon", new Attribute.Real(1e-8f),
                        "weight_decay", new Attribute.Real((float) weightDecay),
                        "correct_bias", new Attribute.Int(1),
                        "adam_mode", new Attribute.Int(0))));
        List<ValueInfo.Extent> one = List.of(ValueInfo.Extent.of(1));
        List<ValueInfo> inputs = new ArrayList<>(List.of(
                new ValueInfo("learning_rate", DType.FLOAT, one, new byte[0]),
                new ValueInfo("step", DType.INT64, one, new byte[0])));
        for (String name : List.of("params", "gradients", "first_order_moments", "second_order_moments")) {
            inputs.add(SequenceInfo.ofFloats(name));
        }
        Graph graph = new Graph(
                "optimizer",
                inputs,
                List.of(new ValueInfo("updated_flag", DType.BOOL, one, new byte[0])),
                List.of(),
                Map.of(),
                nodes,
                new byte[0]);
        Map<String, Long> opsets = new LinkedHashMap<>();
        opsets.put("", like.opset());
        opsets.put(CONTRIB, 1L);
        return new Model(like.irVersion(), opsets, graph, Map.of(), false, like.source(), new byte[0]);
    }

    private static Node contrib(
            String op, List<String> inputs, List<String> outputs, Map<String, Attribute> attributes) {
        return new Node(outputs.get(0), CONTRIB, op, inputs, outputs, attributes, new byte[0]);
    }
}
