// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import com.fasterxml.jackson.databind.JsonNode;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.stream.Stream;

/**
 * Rows of token ids, each of at least two tokens.
 *
 * @param source the file that they came from
 * @param rows the ids of each row
 */
public record TokenData(Path source, List<long[]> rows) {
    /** Default length in tokens of a window of running text. */
    static final int TEXT_WINDOW = 256;

    /** Maximal size of a plain text file, which is tokenized in one piece. */
    private static final long MAX_TEXT_BYTES = 1L << 30;

    /**
     * Reads a data file and cuts it into windows. The file holds JSON lines, plain text, or a NumPy array of int32 or
     * int64 with one or two axes. A JSON line is an object with {@code input_ids} (a list of ids), with {@code text},
     * or with a prompt and its answer, which count as text.
     *
     * <p>Rows of ids are cut into windows of {@code sequenceLength} only when they are longer. Text and one-axis
     * arrays are joined and always cut. Tokens after the last complete window are dropped; nothing is padded.
     *
     * @param file .jsonl, .json, .npy, .txt or .text
     * @param tokenizer the tokenizer.json for text
     * @param sequenceLength tokens of a window, at least 2
     * @throws UserException when the file is missing, empty, damaged, of an unknown type or has no row of two tokens,
     *     or when it has text and there is no tokenizer
     */
    public static TokenData read(Path file, Optional<Path> tokenizer, OptionalInt sequenceLength) {
        if (sequenceLength.isPresent() && sequenceLength.getAsInt() < 2) {
            throw new UserException("a sequence length of %d is too short; a prediction takes at least 2 tokens"
                    .formatted(sequenceLength.getAsInt()));
        }
        return new TokenData(file, load(file, tokenizer).cut(file, sequenceLength));
    }

    /**
     * Reads a data file as {@link #read} does, and cuts it into windows that may overlap.
     *
     * @throws UserException as {@link #read}
     */
    static List<Example> examples(Path file, Optional<Path> tokenizer, Windows windows) {
        return load(file, tokenizer).examples(file, windows);
    }

    /** Whether a file begins with token ids; false for text, and for a file that cannot be read. */
    public static boolean hasIds(Path file) {
        if (file.toString().toLowerCase(Locale.ROOT).endsWith(".npy")) {
            return true;
        }
        try (Stream<String> lines = Files.lines(file)) {
            return lines.filter(line -> !line.isBlank()).findFirst().stream()
                    .anyMatch(line -> line.contains("\"input_ids\""));
        } catch (IOException | UncheckedIOException e) {
            return false;
        }
    }

    /**
     * Reads a data file without cutting it into windows.
     *
     * @throws UserException when the file is missing, empty, damaged or of an unknown type, or when it has text and
     *     there is no tokenizer
     */
    static Rows load(Path file, Optional<Path> tokenizer) {
        if (!Files.isRegularFile(file)) {
            throw new UserException("the data file " + file + " does not exist; give a file of tokens or text");
        }
        try {
            if (Files.size(file) == 0) {
                throw new UserException("the data file " + file + " is empty; give a file of tokens or text");
            }
            return readRows(file, tokenizer);
        } catch (CharacterCodingException e) {
            throw new UserException("the data file " + file + " is not UTF-8 text; convert it", e);
        } catch (IOException e) {
            throw new UserException("the data file %s cannot be read: %s".formatted(file, FileFailure.reason(e)), e);
        }
    }

    private static Rows readRows(Path file, Optional<Path> tokenizer) throws IOException {
        String name = file.getFileName().toString().toLowerCase(Locale.ROOT);
        String extension = name.substring(name.lastIndexOf('.') + 1);
        return switch (extension) {
            case "jsonl", "json", "ndjson" -> readJsonLines(file, tokenizer);
            case "npy" ->
                NumpyReader.isOfEmbeddings(file) ? EmbeddingRows.read(file).rows() : NumpyReader.read(file);
            case "txt", "text", "md", "raw" -> {
                if (Files.size(file) > MAX_TEXT_BYTES) {
                    throw new UserException(
                            "the data file %s has over 1 GiB of text in one piece; give a part of it".formatted(file));
                }
                Rows rows = new Rows();
                try (LazyTokenizer text = new LazyTokenizer(file, tokenizer)) {
                    String content = Files.readString(file);
                    rows.running.add(Piece.of(text.get().encode(content)));
                }
                yield rows;
            }
            default ->
                throw new UserException(
                        "the data file %s is of an unknown type; use .jsonl, .txt or .npy".formatted(file));
        };
    }

    private static Rows readJsonLines(Path file, Optional<Path> tokenizer) throws IOException {
        Rows rows = new Rows();
        JsonLines.read(file, tokenizer, (line, text) -> readJsonLine(line, text, rows));
        return rows;
    }

    private static void readJsonLine(JsonLines.Line line, LazyTokenizer text, Rows rows) {
        JsonNode ids = line.node().path("input_ids");
        if (ids.isArray()) {
            rows.fixed.add(line.ids(ids, "input_ids"));
        } else if (line.node().path("text").isTextual()) {
            rows.running.add(Piece.of(text.get().encode(line.node().path("text").asText())));
        } else {
            Instructions.Exchange exchange = Instructions.of(line.node())
                    .orElseThrow(
                            () -> line.failure(
                                    "has neither input_ids (a list of integers) nor text (a string), nor instruction and output, nor prompt and completion"));
            rows.running.add(exchange.encode(text.get()));
        }
    }

    /**
     * Checks that all ids are in a model's vocabulary.
     *
     * @param vocabulary size of the vocabulary
     * @throws UserException when an id is negative or not below {@code vocabulary}
     */
    public void requireVocabulary(long vocabulary) {
        for (long[] row : rows) {
            for (long id : row) {
                if (id < 0 || id >= vocabulary) {
                    throw new UserException(
                            "token id %d in %s is outside the model's vocabulary of %d; the tokenizer does not match this model, so use the tokenizer.json that it was exported with"
                                    .formatted(id, source, vocabulary));
                }
            }
        }
    }

    /**
     * A piece of running text.
     *
     * @param prompt number of tokens at its beginning that are a prompt; 0 for text without one
     */
    @SuppressWarnings("ArrayRecordComponent") // token ids, never compared
    record Piece(long[] tokens, int prompt) {
        static Piece of(long[] tokens) {
            return new Piece(tokens, 0);
        }
    }

    /** The content of a file before it is cut into windows. */
    static final class Rows {
        /** Rows of ids, which are not joined. */
        final List<long[]> fixed = new ArrayList<>();

        /** Pieces of running text, to be joined. */
        final List<Piece> running = new ArrayList<>();

        List<long[]> cut(Path file, OptionalInt sequenceLength) {
            return examples(file, Windows.of(sequenceLength)).stream()
                    .map(Example::tokens)
                    .toList();
        }

        /** The rows of ids and the joined text, cut into windows. */
        List<Example> examples(Path file, Windows windows) {
            List<Example> result = new ArrayList<>();
            fixed.forEach(row -> windows.cut(row, row.length, result));
            windows.cut(joined(running), TEXT_WINDOW, result);
            if (result.isEmpty()) {
                throw new UserException("no row of %s has 2 tokens; a prediction takes at least 2".formatted(file));
            }
            return List.copyOf(result);
        }

        private static long[] joined(List<Piece> pieces) {
            return pieces.stream()
                    .flatMapToLong(piece -> Arrays.stream(piece.tokens))
                    .toArray();
        }

        /** Number of tokens of running text. */
        int runningTokens() {
            return running.stream().mapToInt(piece -> piece.tokens.length).sum();
        }

        /** The pieces that are a prompt with its answer. */
        List<Piece> answers() {
            return running.stream().filter(piece -> piece.prompt > 0).toList();
        }

        /**
         * Windows of at most {@code length} tokens from rows of ids, and of exactly {@code length} tokens from text
         * without prompts.
         */
        List<long[]> rows(int length) {
            List<long[]> result = new ArrayList<>();
            List<long[]> text = new ArrayList<>();
            fixed.forEach(row -> windows(row, length, result));
            windows(joined(running.stream().filter(piece -> piece.prompt == 0).toList()), length, text);
            text.removeIf(row -> row.length < length);
            result.addAll(text);
            return result;
        }

        /** All windows of exactly {@code length} tokens. Shorter rows and ends of text are left out. */
        List<long[]> exact(int length) {
            List<long[]> result = new ArrayList<>();
            fixed.forEach(row -> windows(row, length, result));
            windows(joined(running), length, result);
            result.removeIf(row -> row.length != length);
            return result;
        }

        private static void windows(long[] row, int length, List<long[]> into) {
            List<Example> cut = new ArrayList<>();
            Windows.of(OptionalInt.of(length)).cut(row, length, cut);
            cut.forEach(window -> into.add(window.tokens()));
        }
    }
}
