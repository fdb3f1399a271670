// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Nearest;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.BitSet;
import java.util.Optional;
import java.util.regex.Pattern;

/**
 * A file that lists tokens to keep: one token or id a line, or JSON. A token is written as in the tokenizer. In lines a whole
 * number is an id. In JSON numbers are ids and texts are tokens: a list of them, a list of pairs that begin with a token, or
 * an object whose keys are tokens.
 */
public final class KeepFile {
    private static final Pattern NUMBER = Pattern.compile("\\s*[0-9]{1,9}\\s*");
    private static final ObjectMapper JSON = new ObjectMapper();

    private final Path path;
    private final int size;
    private final Optional<TokenizerFile> tokenizer;
    private final BitSet found = new BitSet();

    private KeepFile(Path path, int size, Optional<TokenizerFile> tokenizer) {
        this.path = path;
        this.size = size;
        this.tokenizer = tokenizer;
    }

    /**
     * The ids that a file lists.
     *
     * @param size number of token ids in the model
     * @param tokenizer of the model, which tokens are looked for in
     * @throws UserException if the file cannot be read, lists nothing, or lists something that the model does not have
     */
    public static BitSet read(Path path, int size, Optional<TokenizerFile> tokenizer) {
        KeepFile file = new KeepFile(path, size, tokenizer);
        try {
            file.read(Files.readString(path));
        } catch (CharacterCodingException e) {
            throw file.refused("it is not UTF-8 text");
        } catch (JsonProcessingException e) {
            throw file.refused("it begins as JSON and is none: " + e.getOriginalMessage());
        } catch (IOException e) {
            throw file.refused(FileFailure.reason(e));
        }
        if (file.found.isEmpty()) {
            throw file.refused("it lists no token");
        }
        return file.found;
    }

    private UserException refused(String reason) {
        return new UserException("--vocabulary-keep " + path + " cannot be used: " + reason);
    }

    private void read(String text) throws JsonProcessingException {
        String start = text.stripLeading();
        if (start.startsWith("[\"") || start.startsWith("{\"") || isJson(start)) {
            readJson(JSON.readTree(text));
        } else {
            text.lines().filter(line -> !line.isEmpty()).forEach(line -> {
                if (NUMBER.matcher(line).matches()) {
                    add(Long.parseLong(line.strip()));
                } else {
                    add(line);
                }
            });
        }
    }

    /** Whether a text that may be a token such as {@code [CLS]} is a list or an object. */
    private static boolean isJson(String text) {
        if (!text.startsWith("[") && !text.startsWith("{")) {
            return false;
        }
        try {
            return JSON.readTree(text).isContainerNode();
        } catch (JsonProcessingException e) {
            return false;
        }
    }

    private void readJson(JsonNode root) {
        if (root.isObject()) {
            root.fieldNames().forEachRemaining(this::add);
            return;
        }
        for (JsonNode entry : root) {
            JsonNode token = entry.isArray() ? entry.path(0) : entry;
            if (token.isIntegralNumber()) {
                add(token.asLong());
            } else if (token.isTextual()) {
                add(token.asText());
            } else {
                throw refused("an entry is neither a token nor an id: " + entry);
            }
        }
    }

    private void add(long id) {
        if (id < 0 || id >= size) {
            throw refused("the model has no token id " + id + ", only 0 to " + (size - 1));
        }
        found.set((int) id);
    }

    private void add(String token) {
        TokenizerFile file = tokenizer.orElseThrow(() -> refused(
                "without a tokenizer.json it takes ids only, not \"" + token + "\"; give --tokenizer FILE, or ids"));
        Integer id = file.ids().get(token);
        if (id == null) {
            throw refused("the tokenizer has no token \"" + token + '"'
                    + Nearest.suggestion(token, file.ids().keySet()));
        }
        add(id.longValue());
    }
}
