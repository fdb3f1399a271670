// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import static java.nio.charset.StandardCharsets.UTF_8;

import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.emit.JsonFile;
import io.onnxprune.emit.ModelFolder;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * The files beside a model, for the model with fewer tokens: the tokenizer with the kept tokens, and configurations with new
 * token ids. A file that names tokens and cannot be rewritten is left out with a warning, since it would be wrong.
 */
public final class ReducedFolder {
    /** The tokenizer of the library tokenizers. */
    public static final String TOKENIZER = "tokenizer.json";
    /** The file from old to new token ids. */
    public static final String MAP = "vocabulary_map.json";

    /** Ends of names of tokenizers in formats of other libraries. */
    private static final Set<String> OTHER_TOKENIZERS = Set.of("model", "tiktoken", "spm", "bpe", "vocab");

    private final ModelFolder input;
    private final Optional<TokenizerFile> tokenizer;
    private final KeptTokens kept;
    private final Map<Integer, Integer> sizes;
    private final Log log;

    /**
     * Describes the folder.
     *
     * @param sizes the numbers of token ids in the tables before, each with that after
     */
    public ReducedFolder(
            ModelFolder input,
            Optional<TokenizerFile> tokenizer,
            KeptTokens kept,
            Map<Integer, Integer> sizes,
            Log log) {
        this.input = input;
        this.tokenizer = tokenizer;
        this.kept = kept;
        this.sizes = new LinkedHashMap<>(sizes);
        tokenizer.ifPresent(file -> this.sizes.putIfAbsent(file.size(), kept.after()));
        this.log = log;
    }

    /** The token ids below {@code size} that the configurations beside a model name. */
    public static BitSet named(ModelFolder input, int size) {
        BitSet named = new BitSet();
        for (Path file : input.companions()) {
            if (isConfiguration(name(file))) {
                JsonFile.read(file).ifPresent(json -> named.or(ConfigIds.named(json.root(), size)));
            }
        }
        return named;
    }

    private static String name(Path file) {
        return file.getFileName().toString();
    }

    private static boolean isConfiguration(String name) {
        return name.toLowerCase(Locale.ROOT).endsWith(".json") && !namesTokens(name);
    }

    /** Whether a file is a list of tokens, with or without their ids. */
    private static boolean namesTokens(String name) {
        String lower = name.toLowerCase(Locale.ROOT);
        return Set.of(TOKENIZER, MAP, "vocab.json", "added_tokens.json", "merges.txt", "vocab.txt")
                        .contains(lower)
                || OTHER_TOKENIZERS.contains(lower.substring(lower.lastIndexOf('.') + 1));
    }

    /**
     * Writes the files.
     *
     * @param folder an empty folder
     * @param weights files with weights of the model, which are no companions
     * @throws UserException if a file cannot be read or written
     */
    public void write(Path folder, Set<Path> weights) {
        try {
            for (Path file : input.copiedCompanions(weights, log)) {
                Optional<byte[]> content = isMade(file) ? Optional.empty() : content(file);
                if (content.isPresent()) {
                    Files.write(folder.resolve(name(file)), content.get());
                }
            }
            if (tokenizer.isPresent()) {
                // Without a tokenizer beside the model, one was named on the command line.
                Files.write(folder.resolve(TOKENIZER), tokenizer.get().reduced(kept));
            }
            Files.write(folder.resolve(MAP), map());
        } catch (IOException e) {
            throw new UserException("the files beside the model cannot be written: " + FileFailure.reason(e), e);
        }
    }

    /** Whether a file is made anew, whatever the input has under its name. */
    private static boolean isMade(Path file) {
        return name(file).equals(TOKENIZER) || name(file).equals(MAP);
    }

    /** The new content of a file; empty for one that is left out. */
    private Optional<byte[]> content(Path file) throws IOException {
        String name = name(file);
        if (namesTokens(name)) {
            Optional<byte[]> list = tokenizer.flatMap(found -> tokens(file, found));
            if (list.isEmpty()) {
                log.warn(file + " names tokens of the whole vocabulary and was left out: "
                        + (tokenizer.isPresent()
                                ? "its format is not rewritten; " + TOKENIZER + " has the kept tokens"
                                : "without " + TOKENIZER + " it cannot be rewritten"));
            }
            return list;
        }
        Optional<JsonFile> json = isConfiguration(name) ? JsonFile.read(file) : Optional.empty();
        if (json.isEmpty()) {
            return Optional.of(Files.readAllBytes(file));
        }
        ObjectNode root = json.get().root();
        ObjectNode before = root.deepCopy();
        renumber(name, root);
        return Optional.of(
                root.equals(before) ? Files.readAllBytes(file) : json.get().toBytes());
    }

    private void renumber(String name, ObjectNode root) {
        Set<String> others = ConfigIds.renumber(root, kept, sizes);
        if (!others.isEmpty()) {
            log.warn("%s states %s, which is the size of no table of the model, and was not changed there"
                    .formatted(name, String.join(", ", others)));
        }
        if (root.get("added_tokens_decoder") instanceof ObjectNode byId) {
            ObjectNode renumbered = JsonFile.newObject();
            byId.properties().forEach(entry -> {
                int id = kept.newId(Long.parseLong(entry.getKey()));
                if (id >= 0) {
                    renumbered.set(Integer.toString(id), entry.getValue());
                }
            });
            root.set("added_tokens_decoder", renumbered);
        }
    }

    /** A list of tokens with the kept ones only; empty for a format that is not known. */
    private Optional<byte[]> tokens(Path file, TokenizerFile found) {
        try {
            return switch (name(file)) {
                case "vocab.json", "added_tokens.json" ->
                    JsonFile.read(file).map(json -> {
                        Map<String, Integer> stay = VocabularyMap.reduced(VocabularyMap.read(json.root()), kept);
                        return new JsonFile(VocabularyMap.write(stay), json.text()).toBytes();
                    });
                case "vocab.txt" -> Optional.of(lines(keptLines(Files.readAllLines(file))));
                case "merges.txt" -> Optional.of(lines(keptMerges(Files.readAllLines(file), found)));
                default -> Optional.empty();
            };
        } catch (IOException e) {
            throw new UserException("cannot read " + file + ": " + FileFailure.reason(e), e);
        }
    }

    private static byte[] lines(List<String> lines) {
        return (String.join("\n", lines) + "\n").getBytes(UTF_8);
    }

    /** The lines of kept tokens; the number of a line is the id of its token. */
    private List<String> keptLines(List<String> lines) {
        List<String> stay = new ArrayList<>();
        for (int id = 0; id < lines.size(); id++) {
            if (kept.newId(id) >= 0) {
                stay.add(lines.get(id));
            }
        }
        return stay;
    }

    /** The merges whose tokens stay. */
    private List<String> keptMerges(List<String> lines, TokenizerFile found) {
        Set<String> merges = found.keptMerges(kept);
        return lines.stream()
                .filter(line -> line.startsWith("#version") || line.isBlank() || merges.contains(line))
                .toList();
    }

    private byte[] map() {
        ObjectNode root = JsonFile.newObject();
        root.put("tokens_before", kept.before());
        root.put("tokens_after", kept.after());
        ObjectNode ids = root.putObject("new_ids");
        for (int old : kept.ids()) {
            ids.put(Integer.toString(old), kept.newId(old));
        }
        return new JsonFile(root, "").toBytes();
    }
}
