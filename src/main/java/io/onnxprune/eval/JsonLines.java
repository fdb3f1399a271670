// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import io.onnxprune.diag.UserException;
import java.io.BufferedReader;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;

/** Reads files with one JSON object on each line. */
final class JsonLines {
    private static final ObjectMapper JSON = new ObjectMapper();

    private JsonLines() {}

    /**
     * A line of a file.
     *
     * @param number from 1
     */
    record Line(Path file, int number, JsonNode node) {
        /** A failure of this line. {@code what} follows the name of the line in a sentence. */
        UserException failure(String what) {
            return new UserException("line %d of %s %s".formatted(number, file, what));
        }

        /**
         * The token ids in a list.
         *
         * @param list the list
         * @param key the field that it is in, for the message
         * @throws UserException if an entry is no integer of 64 bits
         */
        long[] ids(JsonNode list, String key) {
            long[] row = new long[list.size()];
            for (int i = 0; i < row.length; i++) {
                if (!list.get(i).isIntegralNumber() || !list.get(i).canConvertToLong()) {
                    throw failure("has an %s entry that is not an integer of 64 bits: %s".formatted(key, list.get(i)));
                }
                row[i] = list.get(i).asLong();
            }
            return row;
        }
    }

    /** Takes the lines of a file. */
    interface Reader {
        void read(Line line, LazyTokenizer text);
    }

    /**
     * Reads all lines that are not blank.
     *
     * @param tokenizer the tokenizer.json for text; empty when there is none
     * @throws UserException when a line is not JSON
     */
    static void read(Path file, Optional<Path> tokenizer, Reader reader) throws IOException {
        try (BufferedReader lines = Files.newBufferedReader(file, UTF_8);
                LazyTokenizer text = new LazyTokenizer(file, tokenizer)) {
            int number = 0;
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                number++;
                if (!line.isBlank()) {
                    reader.read(new Line(file, number, parsed(file, number, line)), text);
                }
            }
        }
    }

    private static JsonNode parsed(Path file, int number, String line) {
        try {
            return JSON.readTree(line);
        } catch (JsonProcessingException e) {
            throw new UserException(
                    "line %d of %s is not valid JSON%s; write one JSON object on each line"
                            .formatted(number, file, column(e)),
                    e);
        }
    }

    /** Where a line stops being JSON. One that is over a limit of the parser has no such place. */
    private static String column(JsonProcessingException failure) {
        return failure.getLocation() == null
                ? ": " + failure.getOriginalMessage()
                : " from column " + failure.getLocation().getColumnNr() + " on";
    }
}
