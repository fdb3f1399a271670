// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.TemporaryFolder;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.ir.ValueInfo.Extent;
import io.onnxprune.onnx.ModelWriter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * A model in memory, split for a session into the serialised graph and the weights, which are used in place.
 *
 * @param graph a {@code ModelProto} with the small constants
 * @param weights all other initializers, by name
 */
@SuppressWarnings("ArrayRecordComponent") // handed to the runtime, never compared
record SuppliedModel(byte[] graph, Map<String, HostTensor> weights) {
    private static final long SUPPLIED_BYTES = 4096;

    private static Path folder;

    static SuppliedModel of(Model full) {
        Model model = ordered(full);
        Map<String, HostTensor> weights = new LinkedHashMap<>();
        model.graph().initializers().forEach((name, tensor) -> {
            if (isSupplied(tensor)) {
                weights.put(
                        name,
                        new HostTensor(
                                tensor.dtype(), tensor.shape(), tensor.bytes().direct()));
            }
        });
        return new SuppliedModel(ModelWriter.skeleton(model, SuppliedModel::isSupplied), weights);
    }

    /**
     * The model with weights as inputs instead of initializers, for sessions whose weights are in the memory of a
     * device already. So the runtime neither copies them nor computes anything from them when it opens the session.
     *
     * @param graph a {@code ModelProto} with the small constants
     * @param weights the contents of the added inputs, by name
     */
    record OfInputs(byte[] graph, Map<String, Tensor> weights) {
        static OfInputs of(Model full) {
            Model model = ordered(full);
            Map<String, Tensor> constants = new LinkedHashMap<>(model.graph().initializers());
            Map<String, Tensor> weights = new LinkedHashMap<>(constants);
            weights.values().removeIf(tensor -> !isSupplied(tensor));
            constants.keySet().removeAll(weights.keySet());
            List<ValueInfo> inputs = new ArrayList<>(model.graph().inputs());
            weights.forEach((name, tensor) -> inputs.add(declare(name, tensor)));
            Graph graph = model.graph()
                    .withInitializers(constants)
                    .withInterface(inputs, model.graph().outputs());
            return new OfInputs(ModelWriter.skeleton(model.withGraph(graph), tensor -> false), weights);
        }

        /** Bytes of the weights. */
        long bytes() {
            return weights.values().stream()
                    .mapToLong(tensor -> tensor.dtype().bytes(tensor.elements()))
                    .sum();
        }

        private static ValueInfo declare(String name, Tensor tensor) {
            List<Extent> shape =
                    Arrays.stream(tensor.shape()).mapToObj(Extent::of).toList();
            return new ValueInfo(name, tensor.dtype(), shape, new byte[0]);
        }
    }

    /** Without unused initializers, for which the runtime rejects values, and with the nodes in {@link #weightsFirst order}. */
    private static Model ordered(Model full) {
        Map<String, Tensor> used = new LinkedHashMap<>(full.graph().initializers());
        used.keySet().retainAll(full.graph().reads());
        Graph graph = full.graph()
                .withInitializers(used)
                .withInterface(full.graph().givenInputs(), full.graph().outputs());
        return full.withGraph(graph.withNodes(weightsFirst(graph)));
    }

    /**
     * The nodes, with those that are computed from weights only at the front. The runtime orders nodes by a search
     * from the outputs that follows the input of highest index first. With these nodes at the back it would widen and
     * mask all weights before the first layer runs, and hold all results at once.
     */
    private static List<Node> weightsFirst(Graph graph) {
        Set<String> ready = new HashSet<>(graph.initializers().keySet());
        List<Node> first = new ArrayList<>();
        List<Node> later = new ArrayList<>();
        for (Node node : graph.nodes()) {
            if (!node.inputs().isEmpty() && ready.containsAll(node.inputs())) {
                first.add(node);
                ready.addAll(node.outputs());
            } else {
                later.add(node);
            }
        }
        first.addAll(later);
        return first;
    }

    /** A folder with the empty file {@link ModelWriter#SUPPLIED}. */
    static synchronized Path folder() {
        if (folder == null) {
            Path created = TemporaryFolder.create("onnx-prune-weights");
            try {
                Files.createFile(created.resolve(ModelWriter.SUPPLIED));
            } catch (IOException e) {
                throw new UserException("cannot create a file in %s: %s".formatted(created, FileFailure.reason(e)), e);
            }
            folder = created;
        }
        return folder;
    }

    private static boolean isSupplied(Tensor tensor) {
        return tensor.bytes() != null && tensor.bytes().size() >= SUPPLIED_BYTES && OnnxRuntime.accepts(tensor.dtype());
    }
}
