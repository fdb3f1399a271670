// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.BitSet;
import java.util.Map;

/**
 * WordPiece (Devlin et al., arXiv 1810.04805, appendix A.2): the longest token that begins a word, then the longest that
 * begins the rest, which has a mark in front. The longest stays the longest when others go, so no token depends on another
 * one.
 */
final class WordPieceModel implements TokenModel {
    private final ObjectNode model;
    private final Map<String, Integer> ids;
    private final String prefix;

    /**
     * Reads the model of a tokenizer.json.
     *
     * @param model with {@code vocab} (token to id), {@code unk_token} and {@code continuing_subword_prefix}
     */
    WordPieceModel(ObjectNode model) {
        this.model = model;
        this.ids = VocabularyMap.read(model.path("vocab"));
        this.prefix = model.path("continuing_subword_prefix").asText("##");
    }

    @Override
    public Map<String, Integer> ids() {
        return ids;
    }

    @Override
    public BitSet required() {
        BitSet required = new BitSet();
        ids.forEach((token, id) -> {
            boolean continues = token.startsWith(prefix) && token.length() > prefix.length();
            int[] characters = token.substring(continues ? prefix.length() : 0)
                    .codePoints()
                    .toArray();
            boolean spelled = characters.length > 1;
            for (int i = 0; i < characters.length; i++) {
                String mark = i > 0 || continues ? prefix : "";
                spelled &= ids.containsKey(mark + Character.toString(characters[i]));
            }
            if (!spelled) {
                required.set(id);
            }
        });
        Integer unknown = ids.get(model.path("unk_token").asText(""));
        if (unknown != null) {
            required.set(unknown);
        }
        return required;
    }

    @Override
    public int[] parts(int id) {
        return new int[0];
    }

    @Override
    public void reduce(KeptTokens kept) {
        model.set("vocab", VocabularyMap.write(VocabularyMap.reduced(ids, kept)));
    }
}
