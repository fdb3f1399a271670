// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import com.fasterxml.jackson.annotation.JsonFormat;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.diag.WholeFile;
import io.onnxprune.runtime.TrainingSession;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;

/**
 * What a training leaves in its folder so that it can go on when it was stopped: after each look a checkpoint with the moments of
 * the optimizer, and then a stateFile that names it. A stop at any time leaves the last pair or the one before.
 */
final class TrainingCheckpoint {
    /** A point of the loss curve is a row of numbers. */
    private static final ObjectMapper JSON = JsonMapper.builder()
            .withConfigOverride(
                    EvalPoint.class, form -> form.setFormat(JsonFormat.Value.forShape(JsonFormat.Shape.ARRAY)))
            .build();

    private final Path folder;
    private final Path stateFile;

    TrainingCheckpoint(Path folder) {
        this.folder = folder;
        this.stateFile = folder.resolve("training.json");
    }

    /** The file of the best parameters so far. */
    Path best() {
        return folder.resolve("best");
    }

    /** The file of the parameters and moments at a point of training. */
    Path parameters(TrainingProgress progress) {
        return folder.resolve("step-" + progress.step());
    }

    /**
     * Saves the state of a training, and removes the checkpoint before it.
     *
     * @throws UserException when it cannot be written
     */
    void save(TrainingProgress progress, TrainingSession session) {
        Path before = load().map(this::parameters).orElse(null);
        session.save(parameters(progress), true);
        try {
            WholeFile.write(stateFile, JSON.writeValueAsBytes(progress));
            if (before != null && !before.equals(parameters(progress))) {
                Files.deleteIfExists(before);
            }
        } catch (IOException e) {
            throw new UserException("cannot write " + stateFile + ": " + FileFailure.reason(e), e);
        }
    }

    /**
     * The saved progress; empty when there is none.
     *
     * @throws UserException when the state file cannot be read
     */
    Optional<TrainingProgress> load() {
        if (!Files.exists(stateFile)) {
            return Optional.empty();
        }
        try {
            TrainingProgress progress = JSON.readValue(stateFile.toFile(), TrainingProgress.class);
            if (progress == null || progress.curve() == null || progress.curve().isEmpty()) {
                throw new UserException(stateFile + " is damaged; remove it to start again");
            }
            return Optional.of(progress);
        } catch (IOException e) {
            throw new UserException(stateFile + " is damaged; remove it to start again", e);
        }
    }
}
