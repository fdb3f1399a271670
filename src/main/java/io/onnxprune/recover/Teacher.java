// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.lower.Renaming;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.ModelInterface;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * The teacher of distillation: another model whose predictions a model is trained towards. It runs within the training
 * graph.
 */
final class Teacher {
    private static final String PREFIX = "onnx_prune_teacher_";

    private final Model lowered;
    private final ModelInterface decoder;
    private final double temperature;
    private final double weight;

    /**
     * Creates a teacher.
     *
     * @param lowered lowered model for rows of the same length, with the same vocabulary
     * @param temperature divisor of both models' logits
     * @param weight weight of the KL divergence, from 0 to 1; the cross-entropy of the data has the remaining weight
     */
    Teacher(Model lowered, double temperature, double weight) {
        this.lowered = lowered;
        this.decoder = ModelInterface.of(lowered.graph());
        this.temperature = temperature;
        this.weight = weight;
    }

    double temperature() {
        return temperature;
    }

    double weight() {
        return weight;
    }

    /**
     * Appends the teacher's nodes under names of their own, and returns the name of its logits.
     *
     * @param inputs receives the teacher's graph inputs
     */
    String append(GraphBuilder into, List<ValueInfo> inputs) {
        Map<String, String> renamed = new HashMap<>();
        lowered.graph().initializers().forEach((name, tensor) -> renamed.put(name, into.constant(tensor)));
        for (ValueInfo input : lowered.graph().givenInputs()) {
            renamed.put(input.name(), PREFIX + input.name());
            inputs.add(input.withName(PREFIX + input.name()));
        }
        for (Node node : lowered.graph().nodes()) {
            node.outputs().stream().filter(name -> !name.isEmpty()).forEach(name -> renamed.put(name, PREFIX + name));
        }
        for (Node node : lowered.graph().nodes()) {
            Node own = Renaming.all(node, renamed);
            // Node names are optional, but must be unique.
            into.add(node.name().isEmpty() ? own : own.withName(PREFIX + node.name()));
        }
        return renamed.get(decoder.requireLogits().name());
    }

    /** The teacher's inputs for a batch. */
    Map<String, HostTensor> feeds(long[][] rows) {
        Map<String, HostTensor> feeds = new HashMap<>();
        decoder.wholeRows(rows).forEach((name, tensor) -> feeds.put(PREFIX + name, tensor));
        return feeds;
    }
}
