// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** A decoder with its loss and the gradients of its float weights, over the complete graph. */
final class GradientModel implements AutoCloseable {
    private final Session session;
    private final ModelInterface decoder;
    private final CausalLmLoss loss;
    private final Map<String, String> gradients = new LinkedHashMap<>();
    private final Map<String, HostTensor> weights = new LinkedHashMap<>();

    private GradientModel(Model model, OnnxRuntime runtime, boolean optimize, boolean backward, boolean movable) {
        Program program = Program.of(model);
        Graph graph = model.graph();
        GraphBuilder builder = new GraphBuilder("onnx_prune_gradient_", GraphBuilder.names(graph));
        decoder = ModelInterface.of(graph);
        loss = CausalLmLoss.append(
                decoder.requireLogits().name(), decoder.requireRows().name(), builder);
        if (backward) {
            Trace trace = Trace.of(program, runtime, Log.NONE);
            Value logits = program.outputs().stream()
                    .filter(value -> value.name().equals(decoder.requireLogits().name()))
                    .findFirst()
                    .orElseThrow();
            List<Value> weights = program.initializers().values().stream()
                    .filter(value -> isWeight(value.constant()))
                    .toList();
            Backward.append(program.ops(), trace, Map.of(logits, loss.gradient()), weights, builder)
                    .forEach((value, name) -> gradients.put(value.name(), name));
        }
        Model extended = extended(model, builder, outputs());
        session = runtime.open(movable ? withWeightsAsInputs(extended) : extended, optimize);
    }

    /** The loss and all gradients. */
    static GradientModel of(Model model) {
        return new GradientModel(model, TestModels.runtime(), false, true, false);
    }

    /** The loss only, for any values of the weights. */
    static GradientModel ofMovableWeights(Model model) {
        return new GradientModel(model, TestModels.runtime(), false, false, true);
    }

    /** The loss, with or without gradients, for measurements. */
    static GradientModel of(Model model, OnnxRuntime runtime, boolean optimize, boolean backward) {
        return new GradientModel(model, runtime, optimize, backward, false);
    }

    /** Whether a constant is a weight and not a scalar such as an exponent. */
    static boolean isWeight(Tensor tensor) {
        return tensor.dtype().isFloat() && tensor.elements() > 1 && tensor.bytes() != null;
    }

    private Model withWeightsAsInputs(Model model) {
        Map<String, Tensor> constants = new LinkedHashMap<>(model.graph().initializers());
        List<ValueInfo> inputs = new ArrayList<>(model.graph().givenInputs());
        model.graph().initializers().forEach((name, tensor) -> {
            if (isWeight(tensor)) {
                constants.remove(name);
                weights.put(
                        name,
                        new HostTensor(
                                tensor.dtype(),
                                tensor.shape(),
                                ByteBuffer.wrap(tensor.bytes().toArray())));
                List<ValueInfo.Extent> shape = Arrays.stream(tensor.shape())
                        .mapToObj(ValueInfo.Extent::of)
                        .toList();
                inputs.add(new ValueInfo(name, tensor.dtype(), shape, new byte[0]));
            }
        });
        return model.withGraph(model.graph()
                .withInitializers(constants)
                .withInterface(inputs, model.graph().outputs()));
    }

    /** The weights of a model that was opened with replaceable ones; replacing one changes the loss. */
    Map<String, HostTensor> movableWeights() {
        return weights;
    }

    private List<String> outputs() {
        List<String> outputs = new ArrayList<>(gradients.values());
        outputs.add(loss.rows());
        return outputs;
    }

    /** A model with the nodes of a builder added, and other outputs. */
    static Model extended(Model model, GraphBuilder builder, List<String> outputs) {
        Graph graph = model.graph();
        List<Node> nodes = new ArrayList<>(graph.nodes());
        nodes.addAll(builder.nodes());
        Map<String, Tensor> initializers = new LinkedHashMap<>(graph.initializers());
        initializers.putAll(builder.initializers());
        List<ValueInfo> declared = outputs.stream()
                .map(name -> new ValueInfo(name, DType.UNDEFINED, null, new byte[0]))
                .toList();
        return model.withGraph(graph.withNodes(nodes)
                .withInitializers(initializers)
                .withValues(List.of())
                .withInterface(graph.inputs(), declared));
    }

    /** The weights that have a gradient. */
    List<String> weights() {
        return List.copyOf(gradients.keySet());
    }

    private Map<String, HostTensor> feeds(long[][] tokens) {
        Map<String, HostTensor> feeds = decoder.wholeRows(tokens);
        feeds.putAll(weights);
        return feeds;
    }

    /** Runs rows of equal length without reading results back. */
    void run(long[][] tokens) {
        session.run(feeds(tokens), outputs()).close();
    }

    /** The mean loss of each row. */
    float[] losses(long[][] tokens) {
        try (Outputs outputs = session.run(feeds(tokens), List.of(loss.rows()))) {
            return outputs.tensor(loss.rows()).toFloats();
        }
    }

    /** The gradient of the sum of the rows' losses, by weight. */
    Map<String, HostTensor> gradients(long[][] tokens) {
        try (Outputs outputs = session.run(feeds(tokens), gradients.values())) {
            Map<String, HostTensor> result = new HashMap<>();
            gradients.forEach((weight, name) -> result.put(weight, outputs.tensor(name)));
            return result;
        }
    }

    @Override
    public void close() {
        session.close();
    }
}
