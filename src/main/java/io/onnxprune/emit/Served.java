// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.ValueInfo;
import java.util.List;
import java.util.Optional;

/**
 * What a client sees of a folder.
 *
 * @param config the numbers of the decoder in config.json; empty without that file
 * @param caches the caches that the model takes
 * @param forGenai whether there is a genai_config.json
 * @param equalLayers whether all layers with attention have equal numbers of heads
 */
record Served(Optional<ObjectNode> config, List<Cache> caches, boolean forGenai, boolean equalLayers) {
    /**
     * A cache [batch, heads, positions, size] as an input of the model declares it.
     *
     * @param heads number of heads; -1 if the model leaves it open
     * @param size head size; -1 if the model leaves it open
     */
    record Cache(long heads, long size) {}

    Served {
        caches = List.copyOf(caches);
    }

    /** The folder of a dense model. */
    static Served of(Graph graph, ModelFolder folder) {
        Optional<ObjectNode> config =
                folder.companion(ModelFolder.CONFIG).flatMap(JsonFile::read).map(JsonFile::root);
        boolean forGenai = folder.companion(ModelFolder.GENAI_CONFIG).isPresent();
        return new Served(config.map(ModelConfig::decoder), caches(graph), forGenai, true);
    }

    private static List<Cache> caches(Graph graph) {
        return graph.givenInputs().stream()
                .filter(input -> input.dtype() != null && input.dtype().isFloat())
                .filter(input -> input.shape() != null && input.shape().size() == 4)
                .filter(input -> !input.shape().get(2).isKnown())
                .map(Served::cache)
                .toList();
    }

    /** This folder with a pruned model and the configuration for it. */
    Served pruned(Graph graph, Optional<ObjectNode> changed, Sizes sizes) {
        return new Served(changed.map(ModelConfig::decoder), caches(graph), forGenai, sizes.hasEqualHeads());
    }

    private static Cache cache(ValueInfo input) {
        return new Cache(input.shape().get(1).size(), input.shape().get(3).size());
    }

    /** Whether the model does not say how many heads a cache has. */
    boolean leavesHeadsOpen() {
        return caches.stream().anyMatch(cache -> cache.heads < 0);
    }
}
