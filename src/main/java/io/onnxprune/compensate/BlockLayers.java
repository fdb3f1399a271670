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

/** The products of residual blocks, whose weights may become zero. */
final class BlockLayers {
    private final Set<LinearLayer> wanted = new LinkedHashSet<>();
    private final Map<String, String> problems = new LinkedHashMap<>();

    /**
     * Finds those of the blocks that the model of {@code state} still has.
     *
     * @throws UserException if no product has a weight that may change
     */
    BlockLayers(PrunedState state, LinearLayers consumers) {
        Set<Op> inside = new HashSet<>();
        List<Block> blocks = state.structure().stream().blocks();
        for (int index = 0; index < blocks.size(); index++) {
            if (!state.plan().removesBlock(index, blocks.get(index).layer())) {
                inside.addAll(blocks.get(index).ops());
            }
        }
        for (LinearLayer consumer : consumers.all()) {
            if (consumers.applications(consumer).stream().anyMatch(inside::contains)) {
                wanted.add(consumer);
            }
        }
        consumers.problems().forEach((op, problem) -> {
            if (inside.contains(op)) {
                problems.put(op.node().label(), problem);
            }
        });
        if (wanted.isEmpty()) {
            throw new UserException("no weight of this model can become zero: "
                    + problems.values().stream().findFirst().orElse("it has no residual blocks"));
        }
    }

    boolean contains(LinearLayer consumer) {
        return wanted.contains(consumer);
    }

    /** Notes a product that keeps its weights because it reads no token. */
    void unread(String node) {
        problems.put(node, "node " + node + " reads no token");
    }

    /** Says which products keep their weights. */
    void warn(Log log) {
        problems.values().stream()
                .findFirst()
                .ifPresent(first ->
                        log.warn(problems.size() + " products of residual blocks keep their weights: " + first));
    }
}
