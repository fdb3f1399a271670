// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.UsageException;
import io.onnxprune.eval.DataRequest;
import io.onnxprune.eval.DataRequest.WeightedFile;
import io.onnxprune.eval.SideFiles;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;
import java.util.function.LongUnaryOperator;

/** The data of a run: what it calibrates on and what it is evaluated on. */
public final class DataSettings {
    private final List<WeightedFile> files = new ArrayList<>();
    private boolean self;
    private Optional<Path> evaluation = Optional.empty();
    private Optional<Path> tokenizer = Optional.empty();
    private OptionalInt samples = OptionalInt.empty();
    private OptionalInt sequenceLength = OptionalInt.empty();
    private OptionalLong bos = OptionalLong.empty();
    private SideFiles sides = SideFiles.NONE;
    private Optional<Usual> usual = Optional.empty();

    /**
     * Rows where nothing else was set.
     *
     * @param windows number of calibration rows
     * @param length tokens of a row of text
     */
    record Usual(int windows, int length) {}

    /**
     * Adds a file of calibration data: jsonl with input_ids or text, .npy of token ids or of embeddings, or plain
     * text.
     *
     * @param weight the share of the rows that comes from it, relative to the weights of the other files
     * @throws UsageException if it was added before
     */
    public DataSettings calibration(Path file, double weight) {
        Set<Path> seen = new LinkedHashSet<>();
        files.forEach(other -> seen.add(other.file().toAbsolutePath().normalize()));
        if (!seen.add(file.toAbsolutePath().normalize())) {
            throw new UsageException("--calibration names " + file + " twice; give it once, with a weight");
        }
        files.add(new WeightedFile(file, weight));
        return this;
    }

    /** Lets the model write its calibration text itself. */
    public DataSettings selfCalibration() {
        self = true;
        return this;
    }

    /** Sets the file that perplexity is measured on; by default rows that calibration leaves over. */
    public DataSettings evaluation(Path file) {
        evaluation = Optional.of(file);
        return this;
    }

    /** Sets the tokenizer.json for text; by default the one beside the model. */
    public DataSettings tokenizer(Path file) {
        tokenizer = Optional.of(file);
        return this;
    }

    /** Sets the number of calibration rows; by default that of the recipe. */
    public DataSettings samples(int rows) {
        requireAtLeast("--samples", rows, 1, "");
        samples = OptionalInt.of(rows);
        return this;
    }

    /** Sets the tokens of a row; by default those of the recipe, or shorter rows of ids as they are. */
    public DataSettings sequenceLength(int tokens) {
        requireAtLeast("--seq-len", tokens, 2, ", since a prediction takes two tokens");
        sequenceLength = OptionalInt.of(tokens);
        return this;
    }

    /** Sets the token that text begins with, for text that the model writes. */
    public DataSettings bos(long token) {
        requireAtLeast("--bos", token, 0, "");
        bos = OptionalLong.of(token);
        return this;
    }

    /** Sets files for inputs that do not follow from token ids. */
    public DataSettings sides(SideFiles files) {
        sides = files;
        return this;
    }

    /** Sets what rows are like by default, in place of what the recipe says. */
    DataSettings usual(Usual rows) {
        usual = Optional.of(rows);
        return this;
    }

    Optional<Usual> usual() {
        return usual;
    }

    SideFiles sides() {
        return sides;
    }

    private static void requireAtLeast(String option, long value, long least, String why) {
        if (value < least) {
            throw new UsageException("%s takes %d or more%s, not %s".formatted(option, least, why, value));
        }
    }

    /** The token that text begins with, if it was set. */
    OptionalLong bos() {
        return bos;
    }

    /** Tokens of a row, if they were set. */
    OptionalInt sequenceLength() {
        return sequenceLength;
    }

    Optional<Path> tokenizer() {
        return tokenizer;
    }

    /** The settings without files of rows and without a tokenizer, for a model whose tokens have other ids. */
    DataSettings withoutFiles(LongUnaryOperator newId) {
        DataSettings settings = new DataSettings();
        settings.self = self;
        settings.samples = samples;
        settings.sequenceLength = sequenceLength;
        settings.bos = bos.isPresent() ? OptionalLong.of(newId.applyAsLong(bos.getAsLong())) : bos;
        settings.sides = sides;
        settings.usual = usual;
        return settings;
    }

    /** The settings without a tokenizer where there are no files that it would be for. */
    DataSettings withoutIdleTokenizer() {
        if (!files.isEmpty() || evaluation.isPresent()) {
            return this;
        }
        return withoutFiles(id -> id);
    }

    /** Whether there are files of calibration data. */
    boolean hasFiles() {
        return !files.isEmpty();
    }

    /** The files that are read. */
    List<Path> inputs() {
        List<Path> inputs =
                new ArrayList<>(files.stream().map(WeightedFile::file).toList());
        evaluation.ifPresent(inputs::add);
        tokenizer.ifPresent(inputs::add);
        inputs.addAll(sides.files());
        return inputs;
    }

    /**
     * The request for these data. A method that needs data gets text of the model itself where no file is named.
     *
     * @param calibrates whether the method measures on rows
     * @param trains whether it trains on a file of its own
     * @throws UsageException for settings that have no effect
     */
    DataRequest request(boolean calibrates, boolean trains, long seed) {
        if (self && !files.isEmpty()) {
            throw new UsageException(
                    "--calibration self stands for all of the data; leave out the other --calibration");
        }
        boolean writes = self || calibrates && files.isEmpty();
        requireEffect("--samples", samples.isPresent(), writes || !files.isEmpty(), "--calibration");
        requireEffect("--bos", bos.isPresent(), writes, "--calibration self");
        boolean any = writes || !files.isEmpty() || evaluation.isPresent() || trains;
        requireEffect("--seq-len", sequenceLength.isPresent(), any, "--calibration or --eval");
        requireEffect("--embeddings", sides.embeddings().isPresent(), any, "--calibration or --eval");
        requireEffect("--side", !sides.arrays().isEmpty(), any, "--calibration or --eval");
        requireEffect("--tokenizer", tokenizer.isPresent(), any, "--calibration or --eval");
        return new DataRequest(
                files,
                writes,
                evaluation,
                tokenizer,
                samples,
                sequenceLength,
                DataRequest.USUAL_LENGTH,
                bos,
                calibrates,
                seed);
    }

    private static void requireEffect(String option, boolean given, boolean effect, String with) {
        if (given && !effect) {
            throw new UsageException("%s is for the data of %s, which was not given".formatted(option, with));
        }
    }
}
