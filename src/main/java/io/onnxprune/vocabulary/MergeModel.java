// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Byte-pair encoding (Sennrich et al., arXiv 1508.07909, section 3.2): a word starts as single characters, and the pair with
 * the earliest merge is joined until none is left.
 *
 * <p>Text whose tokens all stay is encoded as before, if the tokens on the way to them stay as well: then each merge that
 * was applied is still there, and the others that remain were there before.
 */
final class MergeModel implements TokenModel {
    private static final int[] NONE = {};

    private final ObjectNode model;
    private final Map<String, Integer> ids;
    private final Map<Integer, String> tokens = new HashMap<>();
    private final Map<Long, Integer> ranks = new HashMap<>();
    private final String prefix;
    private final String suffix;

    /** Two tokens that are joined. */
    private record Pair(String left, String right) {
        static Pair of(JsonNode merge) {
            if (merge.isArray()) {
                return new Pair(merge.path(0).asText(), merge.path(1).asText());
            }
            String text = merge.asText();
            int space = text.indexOf(' ', 1);
            return space < 0 ? new Pair(text, "") : new Pair(text.substring(0, space), text.substring(space + 1));
        }
    }

    /**
     * Reads the model of a tokenizer.json.
     *
     * @param model with {@code vocab} (token to id) and {@code merges} (pairs, or texts with a space between the parts)
     */
    MergeModel(ObjectNode model) {
        this.model = model;
        this.ids = VocabularyMap.read(model.path("vocab"));
        this.prefix = model.path("continuing_subword_prefix").asText("");
        this.suffix = model.path("end_of_word_suffix").asText("");
        ids.forEach((token, id) -> tokens.put(id, token));
        int rank = 0;
        for (JsonNode merge : model.path("merges")) {
            Pair pair = Pair.of(merge);
            Integer left = ids.get(pair.left);
            Integer right = ids.get(pair.right);
            if (left != null && right != null && ids.containsKey(joined(pair.left, pair.right))) {
                ranks.put(key(left, right), rank);
            }
            rank++;
        }
    }

    private static long key(int left, int right) {
        return (long) left << Integer.SIZE | right;
    }

    private String joined(String left, String right) {
        return left + (right.startsWith(prefix) ? right.substring(prefix.length()) : right);
    }

    @Override
    public Map<String, Integer> ids() {
        return ids;
    }

    @Override
    public BitSet required() {
        BitSet bytes = bytes();
        BitSet required = (BitSet) bytes.clone();
        if (bytes.cardinality() < 256) {
            tokens.forEach((id, token) -> {
                List<Integer> symbols = symbols(token);
                if (symbols.size() == 1 || symbols.contains(null)) {
                    required.set(id);
                }
            });
        }
        Integer unknown = ids.get(model.path("unk_token").asText(""));
        if (unknown != null) {
            required.set(unknown);
        }
        return required;
    }

    private BitSet bytes() {
        return model.path("byte_fallback").asBoolean() ? TokenModel.bytes(ids) : new BitSet();
    }

    /** The single characters that a word of this text starts as; null for one that is no token. */
    private List<Integer> symbols(String token) {
        boolean continues = !prefix.isEmpty() && token.startsWith(prefix) && token.length() > prefix.length();
        boolean ends = !suffix.isEmpty() && token.endsWith(suffix) && token.length() > suffix.length();
        int[] characters = token.substring(
                        continues ? prefix.length() : 0, token.length() - (ends ? suffix.length() : 0))
                .codePoints()
                .toArray();
        List<Integer> symbols = new ArrayList<>();
        for (int i = 0; i < characters.length; i++) {
            String before = i > 0 || continues ? prefix : "";
            String after = i == characters.length - 1 && ends ? suffix : "";
            symbols.add(ids.get(before + Character.toString(characters[i]) + after));
        }
        return symbols;
    }

    /** The two tokens of the last merge; none for a token that the merges do not lead to, such as that of a byte. */
    @Override
    public int[] parts(int id) {
        String token = tokens.get(id);
        List<Integer> word = token == null ? List.of() : symbols(token);
        if (word.size() < 2 || word.contains(null)) {
            return NONE;
        }
        while (true) {
            int place = -1;
            int best = Integer.MAX_VALUE;
            for (int i = 0; i + 1 < word.size(); i++) {
                int rank = ranks.getOrDefault(key(word.get(i), word.get(i + 1)), Integer.MAX_VALUE);
                if (rank < best) {
                    best = rank;
                    place = i;
                }
            }
            if (place < 0) {
                return NONE;
            }
            if (word.size() == 2) {
                return word.stream().mapToInt(Integer::intValue).toArray();
            }
            int right = word.remove(place + 1);
            word.set(place, ids.get(joined(tokens.get(word.get(place)), tokens.get(right))));
        }
    }

    @Override
    public void reduce(KeptTokens kept) {
        Map<String, Integer> stay = VocabularyMap.reduced(ids, kept);
        ArrayNode merges = model.arrayNode();
        model.path("merges").forEach(merge -> {
            if (applies(Pair.of(merge), stay)) {
                merges.add(merge);
            }
        });
        model.set("vocab", VocabularyMap.write(stay));
        model.set("merges", merges);
    }

    private boolean applies(Pair pair, Map<String, Integer> stay) {
        return stay.containsKey(pair.left)
                && stay.containsKey(pair.right)
                && stay.containsKey(joined(pair.left, pair.right));
    }

    @Override
    public Set<String> keptMerges(KeptTokens kept) {
        Map<String, Integer> stay = VocabularyMap.reduced(ids, kept);
        Set<String> merges = new HashSet<>();
        model.path("merges").forEach(merge -> {
            Pair pair = Pair.of(merge);
            if (applies(pair, stay)) {
                merges.add(pair.left + ' ' + pair.right);
            }
        });
        return merges;
    }
}
