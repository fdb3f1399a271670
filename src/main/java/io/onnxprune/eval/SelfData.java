// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.diag.WholeFile;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelReader;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;

/**
 * Calibration data that the model generates itself. It is stored in the work folder, so an equal request gets the same
 * text.
 */
final class SelfData {
    /** Version of the file format and of the sampling procedure. */
    private static final String VERSION = "1";

    /** Minimal number of held-out rows. Their usual number is a tenth of that of calibration rows. */
    private static final int MIN_HELD_OUT = 8;

    /**
     * Minimal memory in bytes for caches and logits. Beyond this and the size of the weights, copying caches takes
     * longer than reading the weights.
     */
    private static final long MIN_MEMORY = 64L << 20;

    /** Usual limit in bytes for caches and logits; large models get a quarter of the size of their weights. */
    private static final long USUAL_MEMORY = 1L << 30;

    private final CausalLm model;
    private final Path file;
    private final DataRequest request;
    private final ModelSettings settings;
    private final Log log;

    /**
     * Creates a reader and generator of the model's own text.
     *
     * @param file the model's file
     */
    SelfData(CausalLm model, Path file, DataRequest request, ModelSettings settings, Log log) {
        this.model = model;
        this.file = file;
        this.request = request;
        this.settings = settings;
        this.log = log;
    }

    /**
     * Reads the stored rows or generates them.
     *
     * @param workDir folder in which the text is stored
     * @param tokenizer source of the BOS token when no configuration names it
     * @return the calibration rows, then the held-out rows
     * @throws UserException when the model does not run or the text cannot be stored
     */
    List<long[]> rows(Path workDir, Optional<Path> tokenizer) {
        int length = length();
        OptionalLong bos = bos(tokenizer);
        Set<Long> eos = settings.eos().stream()
                .filter(token -> token < model.vocabulary())
                .collect(Collectors.toCollection(TreeSet::new));
        int count = request.sampleCount() + heldOut();
        Digest digest = new Digest();
        long weights = digest.model(file);
        String key = digest.key(List.of(VERSION, request.seed(), count, length, bos, eos));
        Path stored = workDir.resolve("self-text").resolve(key + ".jsonl");
        Optional<List<long[]>> found = read(stored, count, length);
        if (found.isPresent()) {
            log.info("text that the model wrote in an earlier run is used again: " + stored);
            return found.get();
        }
        createFolder(stored.getParent());
        announce(count, length, bos);
        List<long[]> rows = new SelfText(model, bos, eos).write(count, length, request.seed(), memory(weights), log);
        write(stored, rows);
        return rows;
    }

    /** Number of held-out rows. */
    int heldOut() {
        return request.evaluation().isPresent() ? 0 : Math.max(MIN_HELD_OUT, (request.sampleCount() + 9) / 10);
    }

    private int length() {
        if (request.sequenceLength().isPresent()) {
            int length = request.sequenceLength().getAsInt();
            settings.requireLength(length, "windows of --seq-len " + length);
            model.logits(new long[][] {new long[length]});
            return length;
        }
        int usual = settings.fit(request.usualLength());
        int length = model.longestRow(0, usual);
        if (length < 2) {
            model.logits(new long[][] {new long[2]});
        }
        if (length < usual) {
            log.info("the model runs on rows of up to %d tokens, so its text is as long".formatted(length));
        }
        return length;
    }

    private static long memory(long weights) {
        return Math.max(MIN_MEMORY, Math.min(weights, Math.max(USUAL_MEMORY, weights / 4)));
    }

    private OptionalLong bos(Optional<Path> tokenizer) {
        long vocabulary = model.vocabulary();
        if (request.bos().isPresent()) {
            if (request.bos().getAsLong() >= vocabulary) {
                throw new UserException("--bos %d is outside the model's vocabulary of %d"
                        .formatted(request.bos().getAsLong(), vocabulary));
            }
            return request.bos();
        }
        OptionalLong bos = settings.bos();
        if (bos.isEmpty() && tokenizer.isPresent()) {
            try (TextTokenizer text = new TextTokenizer(tokenizer.get())) {
                bos = text.beginning();
            }
        }
        if (bos.isPresent() && bos.getAsLong() >= vocabulary) {
            log.warn("the BOS token %d is outside the model's vocabulary of %d, so it is not used"
                    .formatted(bos.getAsLong(), vocabulary));
            bos = OptionalLong.empty();
        }
        if (bos.isEmpty()) {
            log.warn("no file beside the model names the BOS token, so the text that the model writes begins"
                    + " with random tokens; --bos N sets it");
        }
        return bos;
    }

    private void announce(int count, int length, OptionalLong bos) {
        log.info("the model writes %d rows of %d tokens to calibrate on%s"
                .formatted(count, length, bos.isPresent() ? ", each from token " + bos.getAsLong() : ""));
        if (!model.decodesTokens()) {
            log.warn("the model has no cache, so each token of its text needs a run over all tokens before it;"
                    + " --calibration FILE is faster");
        }
    }

    private Optional<List<long[]>> read(Path stored, int count, int length) {
        if (!Files.isRegularFile(stored)) {
            return Optional.empty();
        }
        try {
            TokenData data = TokenData.read(stored, Optional.empty(), OptionalInt.empty());
            data.requireVocabulary(model.vocabulary());
            boolean complete =
                    data.rows().size() == count && data.rows().stream().allMatch(row -> row.length == length);
            return complete ? Optional.of(data.rows()) : Optional.empty();
        } catch (UserException e) {
            log.debug("stored text is generated again: " + e.getMessage());
            return Optional.empty();
        }
    }

    private static void createFolder(Path folder) {
        try {
            Files.createDirectories(folder);
        } catch (IOException e) {
            throw notStored(folder, e);
        }
    }

    private static void write(Path target, List<long[]> rows) {
        try {
            String text = rows.stream().map(row -> line(row) + "\n").collect(Collectors.joining());
            WholeFile.write(target, text.getBytes(UTF_8));
        } catch (IOException e) {
            throw notStored(target, e);
        }
    }

    private static String line(long[] row) {
        return "{\"input_ids\":" + Arrays.toString(row).replace(" ", "") + "}";
    }

    private static UserException notStored(Path path, IOException failure) {
        return new UserException(
                "the text that the model writes cannot be kept in %s: %s; name another folder with --work-dir DIR"
                        .formatted(path, FileFailure.reason(failure)),
                failure);
    }

    /** A fingerprint of a model with its weights and of the other settings that the text depends on. */
    private static final class Digest {
        private static final int BLOCK = 1 << 20;

        private final MessageDigest digest;

        Digest() {
            try {
                digest = MessageDigest.getInstance("SHA-256");
            } catch (NoSuchAlgorithmException e) {
                throw new IllegalStateException("every Java platform has SHA-256", e);
            }
        }

        /** Adds a model file and its external weights to the fingerprint; returns their size in bytes. */
        long model(Path file) {
            long size = 0;
            try (FileChannel channel = FileChannel.open(file)) {
                size = channel.size();
                update(Bytes.of(channel.map(FileChannel.MapMode.READ_ONLY, 0, size)));
            } catch (IOException e) {
                throw new UserException("cannot read " + file + ": " + FileFailure.reason(e), e);
            }
            for (Tensor tensor : ModelReader.read(file).graph().initializers().values()) {
                if (tensor.bytes() instanceof Bytes.FileRange outside) {
                    update(outside);
                    size += outside.size();
                }
            }
            return size;
        }

        private void update(Bytes bytes) {
            ByteBuffer buffer = ByteBuffer.allocate(BLOCK);
            for (long offset = 0; offset < bytes.size(); offset += BLOCK) {
                buffer.clear().limit((int) Math.min(BLOCK, bytes.size() - offset));
                bytes.read(offset, buffer);
                digest.update(buffer.flip());
            }
        }

        /** The fingerprint with these settings, as 32 hexadecimal digits. */
        String key(List<?> parts) {
            digest.update(parts.toString().getBytes(UTF_8));
            return HexFormat.of().formatHex(digest.digest()).substring(0, 32);
        }
    }
}
