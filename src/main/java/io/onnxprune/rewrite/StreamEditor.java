// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.rewrite.StreamBasis.Place;
import java.util.HashMap;
import java.util.Map;

/**
 * New contents of constants. A matrix keeps its name, for all its uses. A vector gets a copy at each use, since exporters share
 * equal vectors that mean different things.
 */
final class StreamEditor {
    private final Model model;
    private final GraphEditor graph;
    private final Map<Value, Tensor> matrices = new HashMap<>();
    private final Map<String, Tensor> initializers = new HashMap<>();
    private final Map<Use, Tensor> vectors = new HashMap<>();

    StreamEditor(Model model) {
        this.model = model;
        this.graph = new GraphEditor(model);
    }

    GraphEditor graph() {
        return graph;
    }

    /** The contents so far. */
    Tensor contents(Place place) {
        Tensor before = place.constant().constant();
        return before.rank() == 1
                ? vectors.getOrDefault(place.use(), before)
                : matrices.getOrDefault(place.constant(), before);
    }

    void set(Place place, Tensor tensor) {
        Value constant = place.constant();
        if (tensor.rank() == 1) {
            vectors.put(place.use(), tensor);
            return;
        }
        matrices.put(constant, tensor);
    }

    /** Other contents for a constant at all its uses. */
    void set(Value constant, Tensor tensor) {
        matrices.put(constant, tensor);
    }

    Model apply() {
        matrices.forEach((value, tensor) -> {
            boolean named =
                    value.producer() == null && model.graph().initializers().containsKey(value.name());
            if (named) {
                initializers.put(value.name(), tensor);
            } else {
                String name = graph.addInitializer(value.name(), tensor);
                value.uses().forEach(use -> graph.setInput(use.op().node(), use.input(), name));
            }
        });
        vectors.forEach((use, tensor) -> {
            String name = graph.addInitializer(use.op().input(use.input()).name(), tensor);
            graph.setInput(use.op().node(), use.input(), name);
        });
        Model changed = graph.apply(initializers);
        return changed.withGraph(DeadCode.remove(model.graph(), changed.graph()));
    }
}
