// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.rewrite.PrunedState;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** The linear layers of residual blocks whose weights may be set to zero. */
final class BlockLayers {
    private final Set<LinearLayer> changeable = new LinkedHashSet<>();
    private final Map<String, String> problems = new LinkedHashMap<>();

    /**
     * Finds the linear layers in those residual blocks that the model of {@code state} keeps.
     *
     * @throws UserException if no linear layer has a weight that may be changed
     */
    BlockLayers(PrunedState state, LinearLayers layers) {
        Set<Op> inside = new HashSet<>();
        List<Block> blocks = state.structure().stream().blocks();
        for (int index = 0; index < blocks.size(); index++) {
            if (!state.plan().removesBlock(index, blocks.get(index).layer())) {
                inside.addAll(blocks.get(index).ops());
            }
        }
        for (LinearLayer layer : layers.all()) {
            if (layers.applications(layer).stream().anyMatch(inside::contains)) {
                changeable.add(layer);
            }
        }
        layers.problems().forEach((op, problem) -> {
            if (inside.contains(op)) {
                problems.put(op.node().label(), problem);
            }
        });
        if (changeable.isEmpty()) {
            throw new UserException("no weight of this model can become zero: "
                    + problems.values().stream().findFirst().orElse("it has no residual blocks"));
        }
    }

    boolean contains(LinearLayer layer) {
        return changeable.contains(layer);
    }

    /** Records a linear layer that keeps its weights because no token reaches it. */
    void markUnreached(String node) {
        problems.put(node, "node " + node + " gets no token");
    }

    /** Warns of the linear layers that keep their weights. */
    void warn(Log log) {
        problems.values().stream()
                .findFirst()
                .ifPresent(first ->
                        log.warn(problems.size() + " linear layers of residual blocks keep their weights: " + first));
    }
}
