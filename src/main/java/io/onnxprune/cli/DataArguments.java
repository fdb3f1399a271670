// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.api.DataSettings;
import io.onnxprune.api.Pruner;
import io.onnxprune.diag.Amount;
import io.onnxprune.diag.PathText;
import io.onnxprune.diag.UsageException;
import io.onnxprune.eval.CalibrationData;
import io.onnxprune.eval.DataRequest;
import io.onnxprune.eval.DataRequest.WeightedFile;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** Options about the data for calibration and evaluation. */
final class DataArguments {
    private static final Pattern WEIGHTED = Pattern.compile("(.+):([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)");

    @Option(
            names = "--calibration",
            paramLabel = "FILE[:WEIGHT]",
            description =
                    "calibration data: jsonl with input_ids or text, .npy of token ids (or of embeddings), or plain text;"
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

    @Mixin
    private SideArguments sides = new SideArguments();

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
            names = "--device-memory",
            paramLabel = "N",
            description = "memory limit of calibration on the GPU: 24GB (default: most of what is free)")
    private String deviceMemory;

    @Option(
            names = "--resume",
            description = "continue a stopped run of the same model, data and options (same --work-dir)")
    private boolean resume;

    /** Passes the data, the memory and the work folder to {@code builder}. */
    void describe(Pruner.Builder builder) {
        builder.data(this::describe).resume(resume);
        if (memory != null) {
            builder.memory((long) Amount.bytes(memory, "--memory"));
        }
        if (deviceMemory != null) {
            builder.deviceMemory((long) Amount.bytes(deviceMemory, "--device-memory"));
        }
        if (workDir != null) {
            builder.workFolder(workDir);
        }
    }

    private void describe(DataSettings data) {
        for (String argument : calibration) {
            if (argument.equals(CalibrationData.SELF)) {
                data.selfCalibration();
            } else {
                WeightedFile file = weighted(argument);
                data.calibration(file.file(), file.weight());
            }
        }
        if (evaluation != null) {
            data.evaluation(evaluation);
        }
        if (tokenizer != null) {
            data.tokenizer(tokenizer);
        }
        data.sides(sides.files());
        if (samples != null) {
            data.samples(samples);
        }
        if (sequenceLength != null) {
            data.sequenceLength(sequenceLength);
        }
        if (bos != null) {
            data.bos(bos);
        }
    }

    /** Parses a file name with a weight after a colon. If a file of the entire name exists, there is no weight. */
    private static WeightedFile weighted(String argument) {
        Matcher form = WEIGHTED.matcher(argument);
        if (!form.matches() || Files.exists(PathText.of(argument))) {
            return new WeightedFile(PathText.of(argument), 1);
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
        return new WeightedFile(PathText.of(form.group(1)), weight);
    }
}
