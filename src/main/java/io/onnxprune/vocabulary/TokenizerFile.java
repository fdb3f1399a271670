// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.diag.UserException;
import io.onnxprune.emit.JsonFile;
import java.nio.file.Path;
import java.util.BitSet;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.IntUnaryOperator;

/**
 * A {@code tokenizer.json} as the library tokenizers writes it: a model of tokens, tokens that were added to it, and steps
 * before and after it that name some of them.
 */
public final class TokenizerFile {
    private static final String ADDED = "added_tokens";
    private static final String POST_PROCESSOR = "post_processor";

    private final Path path;
    private final JsonFile file;
    private final TokenModel model;
    private final Map<String, Integer> ids = new LinkedHashMap<>();
    private final Set<Integer> added = new TreeSet<>();

    private TokenizerFile(Path path, JsonFile file) {
        this.path = path;
        this.file = file;
        this.model = model(path, file.root().path("model"));
        ids.putAll(model.ids());
        for (JsonNode token : file.root().path(ADDED)) {
            int id = token.path("id").asInt(-1);
            ids.put(token.path("content").asText(), id);
            added.add(id);
        }
    }

    /**
     * Reads a tokenizer.
     *
     * @throws UserException if it cannot be read, or its model is of a kind whose tokens cannot go
     */
    public static TokenizerFile read(Path path) {
        JsonFile file = JsonFile.read(path)
                .orElseThrow(() -> new UserException("the tokenizer " + path + " is not a JSON object"));
        return new TokenizerFile(path, file);
    }

    private static TokenModel model(Path path, JsonNode section) {
        if (!(section instanceof ObjectNode model)) {
            throw new UserException("the tokenizer " + path + " has no model, so its tokens are not known");
        }
        // Files of old versions do not name the type.
        String kind = model.path("type")
                .asText(
                        model.has("merges")
                                ? "BPE"
                                : model.path("vocab").isArray()
                                        ? "Unigram"
                                        : model.has("continuing_subword_prefix") ? "WordPiece" : "WordLevel");
        return switch (kind) {
            case "BPE" -> new MergeModel(model);
            case "Unigram" -> new ScoredModel(model);
            case "WordPiece" -> new WordPieceModel(model);
            default ->
                throw new UserException(
                        "the tokenizer %s has a model of type %s, which cannot spell a word in other tokens, so no token can go; BPE, Unigram and WordPiece can"
                                .formatted(path, kind));
        };
    }

    /** The place of the file. */
    public Path path() {
        return path;
    }

    /** The ids of all tokens, by their texts in this file. */
    public Map<String, Integer> ids() {
        return ids;
    }

    /** The ids of the tokens that were added to the model: special tokens and others. */
    public Set<Integer> added() {
        return added;
    }

    /** One more than the largest id. */
    public int size() {
        return 1 + ids.values().stream().mapToInt(Integer::intValue).max().orElse(-1);
    }

    /** The ids of the tokens that this token is joined from. It is made of text only as long as they stay. */
    public int[] parts(int id) {
        return added.contains(id) ? new int[0] : model.parts(id);
    }

    /**
     * The ids that must stay: added tokens, those that the file names, single bytes or characters, and tokens that no other
     * ones can spell.
     */
    public BitSet required() {
        BitSet required = model.required();
        added.stream().filter(id -> id >= 0).forEach(required::set);
        // Steps around the model may put characters in that no text has, such as one for a space.
        for (String step : new String[] {"normalizer", "pre_tokenizer", "decoder"}) {
            requireCharacters(file.root().path(step), required);
        }
        renumber(file.root().path(POST_PROCESSOR).deepCopy(), id -> {
            required.set(id);
            return id;
        });
        int padding = file.root().path("padding").path("pad_id").asInt(-1);
        if (padding >= 0) {
            required.set(padding);
        }
        return required;
    }

    private void requireCharacters(JsonNode step, BitSet required) {
        if (step.isTextual()) {
            step.asText().codePoints().forEach(c -> {
                Integer id = ids.get(Character.toString(c));
                if (id != null) {
                    required.set(id);
                }
            });
        }
        step.properties().forEach(field -> {
            if (!field.getKey().equals("type")) {
                requireCharacters(field.getValue(), required);
            }
        });
        if (step.isArray()) {
            step.forEach(inner -> requireCharacters(inner, required));
        }
    }

    /** The merges whose tokens stay, each as its two tokens with a space between. */
    Set<String> keptMerges(KeptTokens kept) {
        return model.keptMerges(kept);
    }

    /**
     * The content of the file with the kept tokens only, in their new numbers.
     *
     * @throws UserException if it names a token that the model has no row for
     */
    public byte[] reduced(KeptTokens kept) {
        ObjectNode root = file.root().deepCopy();
        model(path, root.path("model")).reduce(kept);
        ArrayNode stay = root.arrayNode();
        for (JsonNode token : root.path(ADDED)) {
            int id = kept.newId(token.path("id").asInt(-1));
            if (id >= 0) {
                stay.add(((ObjectNode) token.deepCopy()).put("id", id));
            }
        }
        root.set(ADDED, stay);
        IntUnaryOperator newId = id -> newId(kept, id);
        renumber(root.path(POST_PROCESSOR), newId);
        if (root.path("padding") instanceof ObjectNode padding
                && padding.path("pad_id").isInt()) {
            padding.put("pad_id", newId.applyAsInt(padding.get("pad_id").intValue()));
        }
        return new JsonFile(root, file.text()).toBytes();
    }

    private int newId(KeptTokens kept, int id) {
        if (kept.newId(id) < 0) {
            throw new UserException(
                    "the tokenizer %s puts token %d into every text, and the model has %d; it is not the tokenizer of this model"
                            .formatted(path, id, kept.before()));
        }
        return kept.newId(id);
    }

    /** Renumbers the ids in a post-processor: lists {@code ids} of templates, and pairs of a token with its id. */
    private static void renumber(JsonNode step, IntUnaryOperator newId) {
        if (step instanceof ObjectNode object) {
            if (object.get("ids") instanceof ArrayNode list) {
                for (int i = 0; i < list.size(); i++) {
                    list.set(i, list.numberNode(newId.applyAsInt(list.get(i).asInt())));
                }
            }
            for (String name : new String[] {"sep", "cls"}) {
                if (object.get(name) instanceof ArrayNode pair && pair.size() == 2) {
                    pair.set(1, pair.numberNode(newId.applyAsInt(pair.get(1).asInt())));
                }
            }
        }
        step.forEach(inner -> renumber(inner, newId));
    }
}
