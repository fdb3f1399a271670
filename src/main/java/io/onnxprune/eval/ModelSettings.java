// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.onnx.ModelPlace;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;

/**
 * Settings of a model from the configuration files beside it.
 *
 * @param bos the token that text begins with (BOS)
 * @param eos the tokens that end text (EOS)
 * @param context maximal number of tokens in a row
 * @param contextSource the entry and file that {@code context} comes from, for messages; empty when there is none
 */
record ModelSettings(OptionalLong bos, Set<Long> eos, OptionalInt context, String contextSource) {
    private static final String CONFIG = "config.json";
    private static final String GENAI = "genai_config.json";
    private static final List<String> TOKEN_FILES = List.of("generation_config.json", CONFIG, GENAI);
    private static final List<String> CONTEXT_FILES = List.of(GENAI, CONFIG);

    /** JSON pointers to the parts of a configuration that hold entries of the language model. */
    private static final List<String> PARTS = List.of("", "/model", "/text_config");

    private static final List<String> CONTEXT_KEYS =
            List.of("context_length", "max_position_embeddings", "n_positions", "max_seq_len");

    private static final ObjectMapper JSON = new ObjectMapper();

    /** Reads the files that exist. A file that cannot be parsed is ignored with a warning. */
    static ModelSettings beside(Path model, Log log) {
        OptionalLong bos = OptionalLong.empty();
        Set<Long> eos = new LinkedHashSet<>();
        for (String name : TOKEN_FILES) {
            JsonNode root = read(ModelPlace.beside(model, name), log);
            List<Long> begin = tokens(root, "bos_token_id");
            bos = bos.isEmpty() && !begin.isEmpty() ? OptionalLong.of(begin.get(0)) : bos;
            if (eos.isEmpty()) {
                eos.addAll(tokens(root, "eos_token_id"));
            }
        }
        for (String name : CONTEXT_FILES) {
            JsonNode root = read(ModelPlace.beside(model, name), Log.NONE);
            for (String key : CONTEXT_KEYS) {
                JsonNode value = entry(root, key);
                if (value.isIntegralNumber() && value.canConvertToInt() && value.asInt() > 0) {
                    return new ModelSettings(bos, eos, OptionalInt.of(value.asInt()), key + " in " + name);
                }
            }
        }
        return new ModelSettings(bos, eos, OptionalInt.empty(), "");
    }

    private static JsonNode read(Path file, Log log) {
        if (!Files.isRegularFile(file)) {
            return JSON.missingNode();
        }
        try {
            return JSON.readTree(file.toFile());
        } catch (IOException e) {
            log.warn("%s is ignored, because it cannot be read: %s"
                    .formatted(file, FileFailure.reason(e).lines().findFirst().orElse("")));
            return JSON.missingNode();
        }
    }

    private static JsonNode entry(JsonNode root, String key) {
        for (String part : PARTS) {
            JsonNode value = root.at(part).path(key);
            if (!value.isMissingNode() && !value.isNull()) {
                return value;
            }
        }
        return JSON.missingNode();
    }

    /** The ids under a key, which holds one id or a list. */
    private static List<Long> tokens(JsonNode root, String key) {
        JsonNode value = entry(root, key);
        Set<Long> ids = new LinkedHashSet<>();
        for (JsonNode id : value.isArray() ? value : List.of(value)) {
            if (id.isIntegralNumber() && id.asLong() >= 0) {
                ids.add(id.asLong());
            }
        }
        return List.copyOf(ids);
    }

    /**
     * Checks that rows of this length fit into the model's context.
     *
     * @param what the rows, as the beginning of a sentence
     * @throws UserException when they do not
     */
    void requireLength(int length, String what) {
        if (context.isPresent() && length > context.getAsInt()) {
            throw new UserException(
                    "%s have %d tokens, more than the model's context of %d (%s); give --seq-len %d or less"
                            .formatted(what, length, context.getAsInt(), contextSource, context.getAsInt()));
        }
    }

    /** The smaller of {@code length} and the model's context. */
    int fit(int length) {
        return Math.min(length, context.orElse(length));
    }
}
