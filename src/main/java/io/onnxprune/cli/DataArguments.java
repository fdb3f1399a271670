// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.diag.CacheFolder;
import io.onnxprune.diag.UsageException;
import io.onnxprune.eval.CalibrationData;
import io.onnxprune.eval.DataRequest;
import io.onnxprune.eval.DataRequest.WeightedFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.OptionalLong;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import picocli.CommandLine.Option;

/** Options about the data that a run calibrates and measures on. */
final class DataArguments {
    private static final Pattern WEIGHTED = Pattern.compile("(.+):([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)");

    @Option(
            names = "--calibration",
            paramLabel = "FILE[:WEIGHT]",
            description = "calibration data: jsonl with input_ids or text, .npy of token ids, or plain text;"
                    + " may be repeated, with weights for the share of windows from each file; or self: text"
                    + " that the model writes")
    private List<String> calibration = List.of();

    @Option(
            names = "--eval",
            paramLabel = "FILE",
            description =
                    "evaluation data for perplexity before and after (default: windows not used for" + " calibration)")
    private Path evaluation;

    @Option(
            names = "--samples",
            paramLabel = "N",
            description = "number of calibration windows (default: as the method says, else "
                    + DataRequest.DEFAULT_SAMPLES + ")")
    private Integer samples;

    @Option(
            names = "--seq-len",
            paramLabel = "N",
            description =
                    "tokens per window (default: as the method says; shorter rows of ids are used" + " unchanged)")
    private Integer sequenceLength;

    @Option(
            names = "--tokenizer",
            paramLabel = "FILE",
            description = "tokenizer.json for text (default: the one beside the model)")
    private Path tokenizer;

    @Option(
            names = "--bos",
            paramLabel = "N",
            description =
                    "first token of each text, for --calibration self (default: from the model's" + " configuration)")
    private Long bos;

    @Option(
            names = "--work-dir",
            paramLabel = "DIR",
            description = "folder for reusable files and checkpoints (default: in the user's cache folder)")
    private Path workDir;

    @Option(
            names = "--memory",
            paramLabel = "N",
            description = "memory limit of calibration, besides the program itself: 8GB, 900MB (default: 4GB)")
    private String memory;

    @Option(
            names = "--resume",
            description = "continue a stopped run of the same model, data and options (same --work-dir)")
    private boolean resume;

    /** The files that are read. */
    Inputs inputs() {
        List<Path> files =
                new ArrayList<>(files().stream().map(WeightedFile::file).toList());
        files.add(evaluation);
        files.add(tokenizer);
        return Inputs.of(files.toArray(Path[]::new));
    }

    /** How calibration runs. */
    CalibrationOptions calibrationOptions() {
        long bytes = memory == null ? CalibrationOptions.DEFAULT_MEMORY : (long) Amount.memory(memory);
        if (bytes <= 0) {
            throw new UsageException("--memory takes 1 byte or more, like 900MB or 4GB, not \"" + memory + '"');
        }
        return new CalibrationOptions(bytes, workDir(), resume);
    }

    /** Tokens of a window; null where that was not given. */
    Integer sequenceLength() {
        requirePositive("--seq-len", sequenceLength, 2, ", since a prediction takes two tokens");
        return sequenceLength;
    }

    private Path workDir() {
        if (workDir != null && Files.exists(workDir) && !Files.isDirectory(workDir)) {
            throw new UsageException("--work-dir " + workDir + " is a file; name a folder");
        }
        return workDir == null ? CacheFolder.path().resolve("work") : workDir;
    }

    /**
     * What was asked for. A method that needs data gets text of the model itself where none is named.
     *
     * @param calibrates whether the method needs data
     * @param trains whether it trains on a file of its own
     * @throws UsageException for values that cannot be, and for options that have no effect
     */
    DataRequest request(boolean calibrates, boolean trains, long seed) {
        boolean self = isSelf() || calibrates && calibration.isEmpty();
        requirePositive("--samples", samples, 1, "");
        requirePositive("--bos", bos, 0, "");
        requireEffect("--samples", samples, self || !calibration.isEmpty(), "--calibration");
        requireCalibration("--memory", memory != null, calibrates);
        requireCalibration("--resume", resume, calibrates);
        requireEffect("--bos", bos, self, "--calibration self");
        boolean any = self || !calibration.isEmpty() || evaluation != null || trains;
        requireEffect("--seq-len", sequenceLength, any, "--calibration or --eval");
        requireEffect("--tokenizer", tokenizer, any, "--calibration or --eval");
        return new DataRequest(
                files(),
                self,
                Optional.ofNullable(evaluation),
                Optional.ofNullable(tokenizer),
                samples == null ? OptionalInt.empty() : OptionalInt.of(samples),
                sequenceLength() == null ? OptionalInt.empty() : OptionalInt.of(sequenceLength),
                DataRequest.USUAL_LENGTH,
                bos == null ? OptionalLong.empty() : OptionalLong.of(bos),
                calibrates,
                seed);
    }

    private static void requirePositive(String option, Number value, long least, String why) {
        if (value != null && value.longValue() < least) {
            throw new UsageException("%s takes %d or more%s, not %s".formatted(option, least, why, value));
        }
    }

    private static void requireEffect(String option, Object value, boolean effect, String with) {
        if (value != null && !effect) {
            throw new UsageException("%s is for the data of %s, which was not given".formatted(option, with));
        }
    }

    private static void requireCalibration(String option, boolean given, boolean calibrates) {
        if (given && !calibrates) {
            throw new UsageException(option + " is for methods that calibrate, which this one does not; leave it out");
        }
    }

    private boolean isSelf() {
        if (!calibration.contains(CalibrationData.SELF)) {
            return false;
        }
        if (calibration.size() > 1) {
            throw new UsageException(
                    "--calibration self stands for all of the data; leave out the other --calibration");
        }
        return true;
    }

    private List<WeightedFile> files() {
        List<WeightedFile> files = new ArrayList<>();
        Set<Path> seen = new LinkedHashSet<>();
        if (isSelf()) {
            return files;
        }
        for (String argument : calibration) {
            WeightedFile file = weighted(argument);
            if (!seen.add(file.file().toAbsolutePath().normalize())) {
                throw new UsageException("--calibration names " + file.file() + " twice; give it once, with a weight");
            }
            files.add(file);
        }
        return files;
    }

    /** A file with a weight behind a colon; a file whose name ends like that is taken by its name. */
    private static WeightedFile weighted(String argument) {
        Matcher form = WEIGHTED.matcher(argument);
        if (!form.matches() || Files.exists(Path.of(argument))) {
            return new WeightedFile(Path.of(argument), 1);
        }
        double weight;
        try {
            weight = Double.parseDouble(form.group(2));
        } catch (NumberFormatException e) {
            weight = Double.NaN;
        }
        if (!(weight > 0) || Double.isInfinite(weight)) {
            throw new UsageException("--calibration takes a weight of more than 0 after the file, as in b.txt:2, not \""
                    + argument + '"');
        }
        return new WeightedFile(Path.of(form.group(1)), weight);
    }
}
