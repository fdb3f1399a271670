// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.lower.Renaming;
import io.onnxprune.runtime.DecoderInterface;
import io.onnxprune.runtime.HostTensor;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** Another model, whose predictions a model is trained to make too. It runs within the training graph. */
final class Teacher {
    private static final String PREFIX = "onnx_prune_teacher_";

    private final Model lowered;
    private final DecoderInterface decoder;
    private final double temperature;
    private final double share;

    /**
     * A teacher.
     *
     * @param lowered for rows of the same length and of the same vocabulary
     * @param temperature what both models' logits are divided by
     * @param share what its divergence counts, against the cross-entropy of the data
     */
    Teacher(Model lowered, double temperature, double share) {
        this.lowered = lowered;
        this.decoder = DecoderInterface.of(lowered.graph());
        this.temperature = temperature;
        this.share = share;
    }

    double temperature() {
        return temperature;
    }

    double share() {
        return share;
    }

    /** Appends the teacher under names of its own, and returns that of its logits. */
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
            // Names are optional, but no two nodes may share one.
            into.add(node.name().isEmpty() ? own : own.withName(PREFIX + node.name()));
        }
        return renamed.get(decoder.logits().name());
    }

    /** What it reads for a batch. */
    Map<String, HostTensor> feeds(long[][] rows) {
        Map<String, HostTensor> feeds = new HashMap<>();
        decoder.wholeRows(rows).forEach((name, tensor) -> feeds.put(PREFIX + name, tensor));
        return feeds;
    }
}
