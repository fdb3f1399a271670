// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.diag.Log;
import io.onnxprune.emit.Sizes.Kind;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;

/**
 * Patches {@code config.json}, from which other programs build the model. Model families use different keys for the
 * same number. A key is only changed when its value is the number that the structure had. ONNX Runtime does not use
 * this file.
 *
 * <p>Where layers differ, a key has the largest number and {@code per_layer_config} those of the others. Transformers 5
 * reads that section, but refuses to read a key that it overrides unless the file allows it, which this one then does.
 *
 * <p>The number of attention heads is also what loaders divide the width by: some for the head size, some to check that
 * nothing is left. A number that does not serve for that stays the old one, and {@code per_layer_config} has the true one
 * of every layer.
 */
final class ModelConfig {
    private static final Map<Kind, List<String>> KEYS = Map.of(
            Kind.HEADS, List.of("num_attention_heads", "n_head", "num_heads", "n_heads", "decoder_attention_heads"),
            Kind.KV_HEADS, List.of("num_key_value_heads", "multi_query_group_num", "num_kv_heads"),
            Kind.FFN,
                    List.of(
                            "intermediate_size",
                            "ffn_dim",
                            "n_inner",
                            "ffn_hidden_size",
                            "moe_intermediate_size",
                            "decoder_ffn_dim"),
            Kind.EXPERTS, List.of("num_experts", "num_local_experts", "n_routed_experts"),
            Kind.HIDDEN, List.of("hidden_size", "n_embd", "d_model", "word_embed_proj_dim"));
    /** Keys of the number of layers. If those of a decoder are set, the others may count an encoder. */
    private static final List<List<String>> LAYER_COUNTS = List.of(
            List.of("num_decoder_layers", "decoder_layers"),
            List.of("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_transformer_layers"));

    private static final List<String> LAYER_LISTS = List.of(
            "layer_types", "no_rope_layers", "layers_block_type", "mlp_layer_types", "attention_layers", "block_types");
    /** Keys of lists of layer numbers. */
    private static final List<String> LAYER_SETS = List.of("mlp_only_layers", "full_attn_idxs");
    /** Keys of the first layer of a kind; the layers before it are of another kind. */
    private static final List<String> LAYER_LIMITS = List.of("max_window_layers", "first_k_dense_replace");

    private static final List<String> HEAD_SIZES = List.of("head_dim", "kv_channels", "d_kv", "qk_head_dim");
    private static final String PER_LAYER = "per_layer_config";
    /** Lets Transformers 5 read a key that {@link #PER_LAYER} overrides. */
    private static final String READABLE = "allow_global_per_layer_attribute_access";

    private static final String SECTION = "text_config";
    private static final String CANNOT_REBUILD =
            ", so a loader that expects one number per model cannot build it from config.json; ONNX Runtime does not need that file";

    private final ObjectNode config;
    private final Sizes sizes;
    private final boolean keepsHeads;
    private final int oldWidth;
    private final int oldHeads;
    private final Set<Kind> stated = EnumSet.noneOf(Kind.class);
    private final Set<Kind> differing = EnumSet.noneOf(Kind.class);
    private final Map<Integer, ObjectNode> oldOverrides = new TreeMap<>();
    private final Map<Integer, ObjectNode> overrides = new TreeMap<>();
    private boolean statesLayers;
    private int otherLayers;
    private int keptHeads;
    private boolean sizeIsNew;

    private ModelConfig(ObjectNode config, Sizes sizes, boolean keepsHeads) {
        this.config = config;
        this.sizes = sizes;
        this.keepsHeads = keepsHeads;
        this.oldWidth = stated(config, Kind.HIDDEN);
        this.oldHeads = stated(config, Kind.HEADS);
    }

    /**
     * Patches {@code config} in place to the pruned sizes. Warns about sizes that it cannot express.
     *
     * @param keepsHeads whether the key of attention heads keeps its number, and only the entries of layers change
     */
    static void patch(ObjectNode config, Sizes sizes, boolean keepsHeads, Log log) {
        ModelConfig root = new ModelConfig(config, sizes, keepsHeads);
        root.patch();
        // Multimodal models have the decoder's numbers in a section.
        if (config.get(SECTION) instanceof ObjectNode section) {
            ModelConfig inner = new ModelConfig(section, sizes, keepsHeads);
            inner.patch();
            root.keptHeads = Math.max(root.keptHeads, inner.keptHeads);
            root.stated.addAll(inner.stated);
            root.differing.addAll(inner.differing);
            root.statesLayers |= inner.statesLayers;
            root.otherLayers = root.otherLayers == 0 ? inner.otherLayers : root.otherLayers;
        }
        root.warn(log);
    }

    private void patch() {
        otherLayers = layerKeys().stream()
                .mapToInt(key -> config.get(key).intValue())
                .filter(count -> count != sizes.layersBefore())
                .findFirst()
                .orElse(0);
        readOverrides();
        // FFN comes first: a missing FFN width follows from the old hidden width.
        for (Kind kind : List.of(Kind.FFN, Kind.HEADS, Kind.KV_HEADS, Kind.EXPERTS, Kind.HIDDEN)) {
            KEYS.get(kind).forEach(key -> patchCount(kind, key));
        }
        if (states(Kind.HIDDEN) || states(Kind.HEADS)) {
            writeHeadSize();
        }
        // The layers of a file that counts them in another way are not those of the model.
        if (otherLayers == 0) {
            if (sizes.dropsLayers()) {
                dropLayers();
            }
            writeOverrides();
        }
    }

    private void patchCount(Kind kind, String key) {
        JsonNode value = config.get(key);
        boolean implied = kind == Kind.FFN && value != null && value.isNull();
        if (value == null || !implied && !value.isInt()) {
            return;
        }
        int old = implied ? impliedForward() : value.intValue();
        Map<Integer, Integer> after = sizes.after(kind, layer -> override(layer, key, old));
        if (after.isEmpty()) {
            return;
        }
        stated.add(kind);
        int largest = after.values().stream().max(Integer::compare).orElseThrow();
        int common = kind == Kind.HEADS ? commonHeads(old, largest) : largest;
        // A null is kept as long as it still implies the right number.
        if (common != old || implied && sizes.changes(Kind.HIDDEN)) {
            config.put(key, common);
        }
        after.forEach((layer, size) -> {
            int position = sizes.layers().indexOf(layer);
            if (size != common) {
                overrides
                        .computeIfAbsent(position, unused -> JsonFile.newObject())
                        .put(key, size);
                differing.add(kind);
            } else if (overrides.containsKey(position)) {
                overrides.get(position).remove(key);
            }
        });
    }

    /**
     * The number of heads for the key that all layers share: one that divides the width, if the old one did. Where the head
     * size follows from it, the old one if the width stays, else one that does not make an odd size of an even one, which
     * rotary embeddings refuse.
     */
    private int commonHeads(int old, int largest) {
        if (oldWidth <= 0 || old <= 0 || oldWidth % old != 0) {
            return largest;
        }
        int width = newWidth();
        boolean follows = HEAD_SIZES.stream().noneMatch(config::hasNonNull);
        boolean keeps = keepsHeads || follows && width == oldWidth;
        if (largest != old && width % old == 0 && (keeps || width % largest != 0)) {
            keptHeads = old;
            return old;
        }
        int step = follows && oldWidth / old % 2 == 0 ? 2 : 1;
        for (int common = largest; common > 0; common--) {
            if (width % common == 0 && width / common % step == 0) {
                return common;
            }
        }
        sizeIsNew = true;
        return largest;
    }

    private int newWidth() {
        return sizes.after(Kind.HIDDEN, layer -> oldWidth).values().stream()
                .findFirst()
                .orElse(oldWidth);
    }

    /** The number that a null implies: four times the hidden width; -1 when that is unknown. */
    private int impliedForward() {
        int width = stated(config, Kind.HIDDEN);
        return width > 0 ? 4 * width : -1;
    }

    /** The part of a configuration that has the numbers of the decoder. */
    static ObjectNode decoder(ObjectNode config) {
        boolean inner = stated(config, Kind.HEADS) < 0 && config.get(SECTION) instanceof ObjectNode;
        return inner ? (ObjectNode) config.get(SECTION) : config;
    }

    /** The number at the first key of {@code kind} that is set; -1 when there is none. */
    static int stated(ObjectNode config, Kind kind) {
        return first(config, KEYS.get(kind));
    }

    /** The head size that is stated; -1 when it is not. */
    static int statedHeadSize(ObjectNode config) {
        return first(config, HEAD_SIZES);
    }

    /** Whether there is a key for the head size, even if it is null. */
    static boolean namesHeadSize(ObjectNode config) {
        return HEAD_SIZES.stream().anyMatch(config::has);
    }

    private static int first(ObjectNode config, List<String> keys) {
        return keys.stream()
                .map(config::get)
                .filter(value -> value != null && value.isInt())
                .mapToInt(JsonNode::intValue)
                .findFirst()
                .orElse(-1);
    }

    /** Whether a key states a number of {@code kind} that changed. */
    private boolean states(Kind kind) {
        return stated.contains(kind) && sizes.changes(kind);
    }

    /**
     * Writes the head size when it is not stated, because a loader would divide the new width by the new number of
     * heads. It is written for each layer, because some families refuse a key of the whole file that they do not have.
     */
    private void writeHeadSize() {
        boolean known = HEAD_SIZES.stream().anyMatch(config::hasNonNull);
        if (known || oldWidth <= 0 || oldHeads <= 0 || oldWidth % oldHeads != 0) {
            return;
        }
        int size = oldWidth / oldHeads;
        if (sizeIsNew || otherLayers != 0) {
            config.put(HEAD_SIZES.get(0), size);
            return;
        }
        for (int position = 0; position < sizes.layers().size(); position++) {
            overrides.computeIfAbsent(position, unused -> JsonFile.newObject()).put(HEAD_SIZES.get(0), size);
        }
    }

    /** The keys that state the number of layers. */
    private List<String> layerKeys() {
        return LAYER_COUNTS.stream()
                .map(keys ->
                        keys.stream().filter(key -> config.path(key).isInt()).toList())
                .filter(keys -> !keys.isEmpty())
                .findFirst()
                .orElse(List.of());
    }

    private void dropLayers() {
        int before = sizes.layersBefore();
        for (String key : layerKeys()) {
            config.put(key, sizes.layers().size());
            statesLayers = true;
        }
        for (String key : LAYER_LISTS) {
            if (config.get(key) instanceof ArrayNode list && list.size() == before) {
                ArrayNode kept = config.putArray(key);
                sizes.layers().forEach(layer -> kept.add(list.get(layer)));
            }
        }
        for (String key : LAYER_SETS) {
            if (config.get(key) instanceof ArrayNode list) {
                config.set(key, renumbered(list, sizes.layers()));
            }
        }
        for (String key : LAYER_LIMITS) {
            if (config.path(key).isInt()) {
                int limit = config.get(key).intValue();
                long kept =
                        sizes.layers().stream().filter(layer -> layer < limit).count();
                config.put(key, Math.toIntExact(limit - Math.min(limit, before) + kept));
            }
        }
    }

    /** The new numbers of the listed layers; layers that are not in {@code layers} are dropped. */
    static ArrayNode renumbered(ArrayNode numbers, List<Integer> layers) {
        ArrayNode renumbered = numbers.arrayNode();
        for (JsonNode number : numbers) {
            int position = layers.indexOf(number.asInt(-1));
            if (position >= 0) {
                renumbered.add(position);
            }
        }
        return renumbered;
    }

    private int override(int layer, String key, int otherwise) {
        ObjectNode own = oldOverrides.get(layer);
        return own != null && own.path(key).isInt() ? own.get(key).intValue() : otherwise;
    }

    /** Reads the per-layer entries of an earlier pruning, by old layer number and, for kept layers, by new number. */
    private void readOverrides() {
        if (otherLayers == 0 && config.get(PER_LAYER) instanceof ObjectNode section) {
            for (int layer = 0; layer < sizes.layersBefore(); layer++) {
                if (section.get(Integer.toString(layer)) instanceof ObjectNode own) {
                    oldOverrides.put(layer, own);
                    int position = sizes.layers().indexOf(layer);
                    if (position >= 0) {
                        overrides.put(position, own.deepCopy());
                    }
                }
            }
        }
    }

    private void writeOverrides() {
        overrides.values().removeIf(ObjectNode::isEmpty);
        if (!overrides.isEmpty()) {
            ObjectNode section = JsonFile.newObject();
            overrides.forEach((layer, own) -> section.set(Integer.toString(layer), own));
            config.set(PER_LAYER, section);
            config.put(READABLE, true);
        } else if (!oldOverrides.isEmpty()) {
            config.remove(PER_LAYER);
            config.remove(READABLE);
        }
    }

    private void warn(Log log) {
        Set<String> differ = new TreeSet<>();
        Set<String> missing = new TreeSet<>();
        for (Kind kind : Kind.values()) {
            boolean same = kind == Kind.KV_HEADS && sizes.sharesNoKeys();
            if (differing.contains(kind) || stated.contains(kind) && sizes.differsInside(kind)) {
                differ.add(kind.title());
            } else if (sizes.changes(kind) && !stated.contains(kind) && !same) {
                missing.add(kind.title());
            }
        }
        if (sizes.dropsLayers() && !statesLayers && otherLayers == 0) {
            missing.add("layers");
        }
        if (sizes.changesHeadSize()) {
            missing.add("channels of a head");
        }
        missing.addAll(sizes.otherChanges());
        if (otherLayers != 0) {
            log.warn("config.json states " + otherLayers + " layers, but the model has " + sizes.layersBefore()
                    + ", so nothing is changed there about single layers" + CANNOT_REBUILD);
        } else if (!differ.isEmpty()) {
            log.info("config.json states one number of " + String.join(", ", differ) + " and " + PER_LAYER
                    + " those of layers that have another");
        }
        if (keptHeads > 0) {
            log.info("config.json keeps the number of attention heads, " + keptHeads
                    + ", which loaders divide the width by");
        }
        if (!missing.isEmpty()) {
            log.warn("config.json has no key that states the old number of " + String.join(", ", missing)
                    + " and was not changed there" + CANNOT_REBUILD);
        }
        if (sizes.splitsLayers()) {
            log.warn("some layers lost their attention or their feed-forward block, which config.json cannot state"
                    + CANNOT_REBUILD);
        }
    }
}
