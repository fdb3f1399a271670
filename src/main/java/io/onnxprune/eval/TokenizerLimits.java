// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import com.fasterxml.jackson.core.JsonFactory;
import com.fasterxml.jackson.core.JsonParser;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.JsonToken;
import com.fasterxml.jackson.core.StreamReadConstraints;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.JsonPlace;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/**
 * Bounds of a {@code tokenizer.json}. The native tokenizer builds its steps and compiles their regular expressions
 * recursively, without a limit. The file is read as a stream, since vocabularies are long.
 */
final class TokenizerLimits {
    /** The largest vocabularies take some 40 MB. */
    private static final long MAX_BYTES = 1L << 30;

    private static final int MAX_DEPTH = 60;
    private static final int MAX_STEPS = 1000;
    private static final int MAX_EXPRESSION = 20_000;
    private static final int MAX_GROUPS = 100;
    private static final JsonFactory JSON = JsonFactory.builder()
            .streamReadConstraints(
                    StreamReadConstraints.builder().maxNestingDepth(MAX_DEPTH).build())
            .build();

    private final Path file;
    private int steps;

    private TokenizerLimits(Path file) {
        this.file = file;
    }

    /**
     * Checks a file.
     *
     * @throws UserException when it is not JSON, or is over a limit
     */
    static void check(Path file) {
        new TokenizerLimits(file).check();
    }

    private void check() {
        try {
            if (Files.size(file) > MAX_BYTES) {
                throw refused("is larger than 1 GiB");
            }
            try (JsonParser parser = JSON.createParser(file.toFile())) {
                if (parser.nextToken() != JsonToken.START_OBJECT) {
                    throw refused("holds no JSON object");
                }
                for (JsonToken token = parser.nextToken(); token != null; token = parser.nextToken()) {
                    if (token == JsonToken.VALUE_STRING) {
                        judge(parser.currentName(), parser.getText());
                    }
                }
            }
        } catch (JsonProcessingException e) {
            throw refused("is not JSON, or nested more than " + MAX_DEPTH + " deep" + JsonPlace.of(e));
        } catch (IOException e) {
            throw new UserException("cannot read the tokenizer " + file + ": " + FileFailure.reason(e), e);
        }
    }

    private void judge(String key, String value) {
        // Each normalizer, splitter and decoder is an object with a type.
        if ("type".equals(key) && ++steps > MAX_STEPS) {
            throw refused("has more than %,d steps".formatted(MAX_STEPS));
        }
        if ("Regex".equals(key)) {
            if (value.length() > MAX_EXPRESSION) {
                throw refused("has a regular expression of more than %,d characters".formatted(MAX_EXPRESSION));
            }
            if (groups(value) > MAX_GROUPS) {
                throw refused(
                        "has a regular expression with more than %d groups inside each other".formatted(MAX_GROUPS));
            }
        }
    }

    /** Number of groups and character classes that are open at once. Escaped brackets count as well: they are few. */
    private static int groups(String expression) {
        int open = 0;
        int most = 0;
        for (int i = 0; i < expression.length(); i++) {
            char c = expression.charAt(i);
            if (c == '(' || c == '[') {
                most = Math.max(most, ++open);
            } else if ((c == ')' || c == ']') && open > 0) {
                open--;
            }
        }
        return most;
    }

    private UserException refused(String problem) {
        return new UserException(
                "the tokenizer %s cannot be read (it %s); give the tokenizer.json that the model was exported with"
                        .formatted(file, problem));
    }
}
