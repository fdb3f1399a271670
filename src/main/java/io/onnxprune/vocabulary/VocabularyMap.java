// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.emit.JsonFile;
import java.util.LinkedHashMap;
import java.util.Map;

/** A JSON object from tokens to ids. */
final class VocabularyMap {
    private VocabularyMap() {}

    /** The ids of the tokens, in the order of the object. Entries that are no ids are left out. */
    static Map<String, Integer> read(JsonNode object) {
        Map<String, Integer> ids = new LinkedHashMap<>();
        object.properties().forEach(entry -> {
            if (entry.getValue().isInt()) {
                ids.put(entry.getKey(), entry.getValue().intValue());
            }
        });
        return ids;
    }

    static ObjectNode write(Map<String, Integer> ids) {
        ObjectNode object = JsonFile.newObject();
        ids.forEach(object::put);
        return object;
    }

    /** The tokens that stay, with their new ids. */
    static Map<String, Integer> reduced(Map<String, Integer> ids, KeptTokens kept) {
        Map<String, Integer> stay = new LinkedHashMap<>();
        ids.forEach((token, id) -> {
            if (kept.newId(id) >= 0) {
                stay.put(token, kept.newId(id));
            }
        });
        return stay;
    }
}
