// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.BitSet;
import java.util.LinkedHashMap;
import java.util.Map;

/**
 * A unigram language model (Kudo, arXiv 1804.10959, section 3.2): of all ways to cut a text into tokens, the one with the
 * largest sum of scores. The best way stays the best when others go, so no token depends on another one.
 */
final class ScoredModel implements TokenModel {
    private final ObjectNode model;
    private final Map<String, Integer> ids = new LinkedHashMap<>();

    /**
     * Reads the model of a tokenizer.json.
     *
     * @param model with {@code vocab} (a list of tokens with scores, by id) and {@code unk_id}
     */
    ScoredModel(ObjectNode model) {
        this.model = model;
        int id = 0;
        for (JsonNode entry : model.path("vocab")) {
            ids.putIfAbsent(entry.path(0).asText(), id);
            id++;
        }
    }

    @Override
    public Map<String, Integer> ids() {
        return ids;
    }

    @Override
    public BitSet required() {
        BitSet bytes = model.path("byte_fallback").asBoolean() ? TokenModel.bytes(ids) : new BitSet();
        BitSet required = (BitSet) bytes.clone();
        if (bytes.cardinality() < 256) {
            ids.forEach((token, id) -> {
                boolean spelled = token.codePoints().allMatch(c -> ids.containsKey(Character.toString(c)));
                if (!spelled || token.codePointCount(0, token.length()) == 1) {
                    required.set(id);
                }
            });
        }
        if (model.path("unk_id").isInt()) {
            required.set(model.get("unk_id").intValue());
        }
        return required;
    }

    @Override
    public int[] parts(int id) {
        return new int[0];
    }

    @Override
    public void reduce(KeptTokens kept) {
        ArrayNode stay = model.arrayNode();
        int id = 0;
        for (JsonNode entry : model.path("vocab")) {
            if (kept.newId(id) >= 0) {
                stay.add(entry);
            }
            id++;
        }
        model.set("vocab", stay);
        if (model.path("unk_id").isInt()) {
            model.put("unk_id", kept.newId(model.get("unk_id").intValue()));
        }
    }
}
