// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import com.fasterxml.jackson.core.JsonGenerator;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.core.json.JsonReadFeature;
import com.fasterxml.jackson.core.json.JsonWriteFeature;
import com.fasterxml.jackson.core.util.DefaultIndenter;
import com.fasterxml.jackson.core.util.DefaultPrettyPrinter;
import com.fasterxml.jackson.core.util.Separators;
import com.fasterxml.jackson.core.util.Separators.Spacing;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.cfg.JsonNodeFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * A configuration file that is read, changed and written in its original style: order of keys, indentation, digits of
 * numbers.
 *
 * @param root the content, to be changed in place
 * @param text the original text
 */
public record JsonFile(ObjectNode root, String text) {
    /** Accepts what Python's json module writes (NaN and Infinity), and does not round numbers. */
    private static final JsonMapper JSON = JsonMapper.builder()
            .enable(JsonReadFeature.ALLOW_NON_NUMERIC_NUMBERS)
            .disable(JsonWriteFeature.WRITE_NAN_AS_STRINGS)
            .enable(DeserializationFeature.USE_BIG_DECIMAL_FOR_FLOATS)
            .disable(JsonNodeFeature.STRIP_TRAILING_BIGDECIMAL_ZEROES)
            .build();

    private static final Pattern FIRST_INDENT = Pattern.compile("\\{\\r?\\n([ \\t]+)");

    /**
     * The file; empty when it does not contain a JSON object.
     *
     * @throws UserException when the file cannot be read
     */
    public static Optional<JsonFile> read(Path file) {
        try {
            String text = Files.readString(file);
            JsonNode root = JSON.readTree(text);
            return root instanceof ObjectNode object ? Optional.of(new JsonFile(object, text)) : Optional.empty();
        } catch (JsonProcessingException | CharacterCodingException | NumberFormatException e) {
            // The parser leaves numbers with absurd exponents to Java.
            return Optional.empty();
        } catch (IOException e) {
            throw new UserException("cannot read " + file + ": " + FileFailure.reason(e), e);
        }
    }

    /** An empty object. */
    public static ObjectNode newObject() {
        return JSON.createObjectNode();
    }

    /** The text of the changed file in UTF-8. */
    public byte[] toBytes() {
        Matcher indent = FIRST_INDENT.matcher(text);
        DefaultIndenter indenter = new DefaultIndenter(indent.lookingAt() ? indent.group(1) : "  ", "\n");
        Separators separators = Separators.createDefaultInstance()
                .withObjectFieldValueSpacing(Spacing.AFTER)
                .withObjectEmptySeparator("")
                .withArrayEmptySeparator("");
        DefaultPrettyPrinter printer = new DefaultPrettyPrinter()
                .withSeparators(separators)
                .withObjectIndenter(indenter)
                .withArrayIndenter(indenter);
        try {
            String written = JSON.writer(printer)
                    .without(JsonGenerator.Feature.WRITE_BIGDECIMAL_AS_PLAIN)
                    .writeValueAsString(root);
            return (text.endsWith("\n") ? written + "\n" : written).getBytes(StandardCharsets.UTF_8);
        } catch (JsonProcessingException e) {
            throw new IllegalStateException(e);
        }
    }
}
