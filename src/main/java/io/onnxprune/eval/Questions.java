// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import com.fasterxml.jackson.databind.JsonNode;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.eval.JsonLines.Line;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Optional;

/**
 * Questions with options, one JSON object a line. Of text: a query, a list of options and the right one. The fields are
 * {@code query}, {@code question}, {@code ctx}, {@code context} or {@code prompt}; {@code choices}, {@code endings} or
 * {@code options}; {@code label}, {@code answer}, {@code answerKey} or {@code gold}, as the usual data sets have them.
 * Of ids: {@code input_ids} in place of the query, and lists of ids as options.
 *
 * @param ofText whether the questions are of text
 */
record Questions(Path source, List<Question> all, boolean ofText) {
    private static final List<String> QUERY = List.of("query", "question", "ctx", "context", "prompt");
    private static final List<String> OPTIONS = List.of("choices", "endings", "options");
    private static final List<String> ANSWER = List.of("label", "answer", "answerKey", "gold");
    private static final String IDS = "input_ids";

    /**
     * A question.
     *
     * @param line where it is in the file, from 1
     * @param answer index of the right option
     */
    record Question(int line, List<Choice> options, int answer) {}

    /**
     * An option after its query.
     *
     * @param row the tokens of both, of which those of the option count
     * @param length of the option: bytes of its text in UTF-8, or the number of its ids
     */
    record Choice(Example row, int length) {}

    /**
     * Reads a file.
     *
     * @param tokenizer the tokenizer.json for text; empty when there is none
     * @throws UserException when the file cannot be read, or a line is no question
     */
    static Questions read(Path file, Optional<Path> tokenizer) {
        if (!Files.isRegularFile(file)) {
            throw new UserException("the file of questions " + file + " does not exist; give a .jsonl file");
        }
        List<Question> all = new ArrayList<>();
        List<Boolean> kinds = new ArrayList<>();
        try {
            JsonLines.read(file, tokenizer, (line, text) -> {
                kinds.add(!line.node().has(IDS));
                all.add(question(line, text));
                if (!kinds.get(0).equals(kinds.get(kinds.size() - 1))) {
                    throw line.failure("has "
                            + (kinds.get(0)
                                    ? "ids where the lines before have text"
                                    : "no " + IDS + ", which the lines before have")
                            + "; give all questions as text or all as ids");
                }
            });
        } catch (IOException e) {
            throw new UserException(
                    "the file of questions %s cannot be read: %s".formatted(file, FileFailure.reason(e)), e);
        }
        if (all.isEmpty()) {
            throw new UserException("the file " + file + " has no questions; give one JSON object on each line");
        }
        return new Questions(file, List.copyOf(all), kinds.get(0));
    }

    private static Question question(Line line, LazyTokenizer text) {
        JsonNode given = required(line, OPTIONS);
        // The data sets of ARC have the texts and their letters in two lists.
        JsonNode options = given.isObject() ? given.path("text") : given;
        if (!options.isArray() || options.isEmpty()) {
            throw line.failure("has no options; " + String.join(", ", OPTIONS) + " is a list of them");
        }
        int answer = answer(line, given.path("label"), options.size());
        List<Choice> choices = line.node().has(IDS) ? ofIds(line, options) : ofText(line, options, text.get());
        return new Question(line.number(), choices, answer);
    }

    private static JsonNode required(Line line, List<String> keys) {
        return keys.stream()
                .map(line.node()::get)
                .filter(value -> value != null && !value.isNull())
                .findFirst()
                .orElseThrow(() -> line.failure("has no %s; a question has a query, options and a right answer"
                        .formatted(String.join(", ", keys.subList(0, keys.size() - 1)) + " or "
                                + keys.get(keys.size() - 1))));
    }

    /** The index of the right option: a number from 0, a letter from A, or one of the options' own labels. */
    private static int answer(Line line, JsonNode labels, int options) {
        String given = required(line, ANSWER).asText().strip();
        int found = -1;
        if (labels.isArray()) {
            for (int i = 0; i < labels.size(); i++) {
                found = labels.get(i).asText().strip().equals(given) ? i : found;
            }
        } else if (given.matches("\\d{1,9}")) {
            found = Integer.parseInt(given);
        } else if (given.matches("[A-Za-z]")) {
            found = given.toUpperCase(Locale.ROOT).charAt(0) - 'A';
        }
        if (found < 0 || found >= options) {
            throw line.failure("names \"%s\" as the right one of %d options; give a number from 0 to %d or a letter"
                    .formatted(given, options, options - 1));
        }
        return found;
    }

    private static List<Choice> ofIds(Line line, JsonNode options) {
        JsonNode ids = line.node().path(IDS);
        if (!ids.isArray() || ids.isEmpty()) {
            throw line.failure("has no ids in " + IDS + "; an option needs a token before it");
        }
        long[] query = line.ids(ids, IDS);
        List<Choice> choices = new ArrayList<>();
        for (JsonNode option : options) {
            if (!option.isArray()) {
                throw line.failure("has an option that is no list of ids: " + option);
            }
            long[] tokens = line.ids(option, "option's");
            long[] row = Arrays.copyOf(query, query.length + tokens.length);
            System.arraycopy(tokens, 0, row, query.length, tokens.length);
            choices.add(choice(line, choices.size(), row, query.length, tokens.length));
        }
        return choices;
    }

    /**
     * Encodes the query with each option. White space between them belongs to the option, and is one blank where there is
     * none, since tokens usually begin with their blank (as in lm-evaluation-harness). An option begins where the tokens
     * first differ from those of the query alone.
     */
    private static List<Choice> ofText(Line line, JsonNode options, TextTokenizer tokenizer) {
        String given = required(line, QUERY).asText();
        String query = given.stripTrailing();
        String gap = given.substring(query.length());
        long[] alone = tokenizer.encode(query);
        List<Choice> choices = new ArrayList<>();
        for (JsonNode node : options) {
            if (!node.isTextual()) {
                throw line.failure("has an option that is no text: " + node);
            }
            String option = node.asText();
            boolean apart = !gap.isEmpty() || option.startsWith(" ") || option.startsWith("\n");
            long[] row = option.isEmpty() ? alone : tokenizer.encode(query + (apart ? gap : " ") + option);
            int common = Arrays.mismatch(alone, row);
            int first = common < 0 ? row.length : common;
            if (first == 0) {
                throw line.failure("has nothing before its options: the query is empty and the tokenizer puts no token"
                        + " in front; give a query");
            }
            choices.add(choice(line, choices.size(), row, first, option.getBytes(StandardCharsets.UTF_8).length));
        }
        return choices;
    }

    private static Choice choice(Line line, int index, long[] row, int first, int length) {
        if (first >= row.length) {
            throw line.failure(
                    "has an option %d (from 0) of no tokens; leave it out or give it a text".formatted(index));
        }
        return new Choice(new Example(row, first), length);
    }

    /** All rows, the options of the first question first. */
    List<Example> rows() {
        return all.stream()
                .flatMap(question -> question.options.stream())
                .map(Choice::row)
                .toList();
    }

    /**
     * Checks that all rows fit.
     *
     * @param limit most tokens of a row
     * @param reason where the limit comes from, for the message
     * @throws UserException naming the first line with a longer row
     */
    void requireLength(int limit, String reason) {
        for (Question question : all) {
            int longest = question.options.stream()
                    .mapToInt(option -> option.row.tokens().length)
                    .max()
                    .orElse(0);
            if (longest > limit) {
                throw new UserException(
                        "line %d of %s has %d tokens with its longest option, more than the model's %d (%s); shorten it or leave it out"
                                .formatted(question.line, source, longest, limit, reason));
            }
        }
    }
}
