// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import com.fasterxml.jackson.core.JsonPointer;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.diag.Log;
import io.onnxprune.emit.Sizes.Kind;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.TreeSet;

/**
 * Patches {@code genai_config.json}, the configuration of onnxruntime-genai. It counts the layers that have a cache,
 * and has one head count for all layers. From version 0.15 on, the counts of each layer come from the inputs of the model.
 */
final class GenaiConfig {
    /** The entry with the name of the ONNX file. */
    static final JsonPointer FILENAME = JsonPointer.compile("/model/decoder/filename");

    private static final String LAYERS = "num_hidden_layers";

    private final ObjectNode decoder;
    private final Sizes sizes;
    private final List<String> uneven = new ArrayList<>();

    private GenaiConfig(ObjectNode decoder, Sizes sizes) {
        this.decoder = decoder;
        this.sizes = sizes;
    }

    /**
     * Patches {@code config} in place to the pruned sizes. Warns about sizes that it cannot express.
     *
     * @param fileName the written model file as seen from the configuration
     */
    static void patch(ObjectNode config, Sizes sizes, String fileName, Log log) {
        if (config.path("model").path("decoder") instanceof ObjectNode decoder) {
            GenaiConfig patched = new GenaiConfig(decoder, sizes);
            patched.patchCount(Kind.HEADS, "num_attention_heads");
            patched.patchCount(Kind.KV_HEADS, "num_key_value_heads");
            patched.patchCount(Kind.HIDDEN, "hidden_size");
            patched.dropLayers();
            if (!decoder.path("filename").asText(fileName).equals(fileName)) {
                decoder.put("filename", fileName);
            }
            patched.warn(log);
        } else {
            log.warn("genai_config.json has no model.decoder section and was copied as it is; check it before serving");
        }
    }

    private void patchCount(Kind kind, String key) {
        if (!decoder.path(key).isInt()) {
            return;
        }
        int old = decoder.get(key).intValue();
        Map<Integer, Integer> after = sizes.after(kind, layer -> old);
        TreeSet<Integer> counts = new TreeSet<>(after.values());
        if (counts.isEmpty()) {
            return;
        }
        int first = after.values().iterator().next();
        if (first != old) {
            decoder.put(key, first);
        }
        if (counts.size() > 1) {
            uneven.add("model.decoder." + key + " (" + counts.first() + " to " + counts.last() + ')');
        }
    }

    private void dropLayers() {
        List<Integer> layers = sizes.attentionLayers();
        int before = sizes.layersBefore();
        if (layers.size() == before || decoder.path(LAYERS).asInt(-1) != before) {
            return;
        }
        decoder.put(LAYERS, layers.size());
        if (decoder.path("sliding_window").path("layers") instanceof ArrayNode numbers) {
            ((ObjectNode) decoder.get("sliding_window")).set("layers", ModelConfig.renumbered(numbers, layers));
        }
        if (decoder.get("layer_types") instanceof ArrayNode types && types.size() == before) {
            ArrayNode kept = decoder.putArray("layer_types");
            layers.forEach(layer -> kept.add(types.get(layer)));
        }
    }

    private void warn(Log log) {
        if (!uneven.isEmpty()) {
            log.info("genai_config.json has the number of the first layer in " + String.join(" and ", uneven)
                    + "; onnxruntime-genai takes those of the others from the model from version 0.15 on, and --layout uniform"
                    + " serves older ones");
        }
        if (sizes.changesHeadSize()) {
            log.warn("genai_config.json keeps its head_size, but the head size changed, so onnxruntime-genai may reject"
                    + " the model; do not prune the head size to serve it there");
        }
    }
}
