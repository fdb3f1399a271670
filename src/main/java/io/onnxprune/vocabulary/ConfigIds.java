// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.IntNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.BitSet;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.IntUnaryOperator;
import java.util.regex.Pattern;

/** The token ids and the sizes of vocabularies in a configuration file, at any depth. */
final class ConfigIds {
    /** Keys whose numbers are token ids: one, a list, lists of lists, or an object from names to ids. */
    private static final Pattern IDS = Pattern.compile(
            ".*_token_ids?|.*_tokens_ids?|.*_token_index|(begin_)?suppress_tokens|bad_words_ids|force_words_ids"
                    + "|lang_to_id|task_to_id");
    /** Keys whose lists have pairs of a position and a token id. */
    private static final Pattern POSITIONED = Pattern.compile("forced_decoder_ids");
    /** Keys whose lists have pairs of token ids and a number. */
    private static final Pattern WEIGHTED = Pattern.compile("sequence_bias");

    private static final Pattern SIZES = Pattern.compile("(.*_)?vocab_size(_.*)?|n_vocab");

    private final IntUnaryOperator newId;
    private final Map<Integer, Integer> sizes;
    private final Set<String> others = new TreeSet<>();

    private ConfigIds(IntUnaryOperator newId, Map<Integer, Integer> sizes) {
        this.newId = newId;
        this.sizes = sizes;
    }

    /** The ids below a size that a configuration names. */
    static BitSet named(JsonNode root, int size) {
        BitSet named = new BitSet();
        ConfigIds reader = new ConfigIds(
                id -> {
                    if (id < size) {
                        named.set(id);
                    }
                    return id;
                },
                Map.of());
        reader.visit(root.deepCopy());
        return named;
    }

    /**
     * Renumbers a configuration in place. Ids that the model does not have are left as they are.
     *
     * @param sizes the numbers of token ids before, each with that after
     * @return the entries for sizes of vocabularies that are none of {@code sizes} and were not changed
     */
    static Set<String> renumber(JsonNode root, KeptTokens kept, Map<Integer, Integer> sizes) {
        ConfigIds writer = new ConfigIds(id -> kept.newId(id) < 0 ? id : kept.newId(id), sizes);
        writer.visit(root);
        return writer.others;
    }

    private void visit(JsonNode node) {
        if (node instanceof ObjectNode object) {
            object.properties().forEach(field -> field.setValue(changed(field.getKey(), field.getValue())));
        } else {
            node.forEach(this::visit);
        }
    }

    private JsonNode changed(String key, JsonNode value) {
        if (IDS.matcher(key).matches()) {
            return ids(value);
        }
        boolean positioned = POSITIONED.matcher(key).matches();
        if (positioned || WEIGHTED.matcher(key).matches()) {
            value.forEach(entry -> {
                int place = positioned ? 1 : 0;
                if (entry instanceof ArrayNode pair && pair.size() == 2) {
                    pair.set(place, ids(pair.get(place)));
                }
            });
        } else if (SIZES.matcher(key).matches() && value.isInt()) {
            Integer size = sizes.get(value.intValue());
            if (size != null) {
                return IntNode.valueOf(size);
            }
            others.add(key + " " + value.intValue());
        } else {
            visit(value);
        }
        return value;
    }

    private JsonNode ids(JsonNode value) {
        if (value.isInt() && value.intValue() >= 0) {
            return IntNode.valueOf(newId.applyAsInt(value.intValue()));
        }
        if (value instanceof ArrayNode list) {
            for (int i = 0; i < list.size(); i++) {
                list.set(i, ids(list.get(i)));
            }
        } else if (value instanceof ObjectNode object) {
            object.properties().forEach(field -> field.setValue(ids(field.getValue())));
        }
        return value;
    }
}
