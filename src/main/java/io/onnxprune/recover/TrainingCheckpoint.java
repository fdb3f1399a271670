// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import com.fasterxml.jackson.annotation.JsonFormat;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.runtime.TrainingSession;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Optional;

/**
 * What a training leaves in its folder so that it can go on when it was stopped: after each look a checkpoint with the moments of
 * the optimizer, and then a note that names it. A stop at any time leaves the last pair or the one before.
 */
final class TrainingCheckpoint {
    /** A look at the losses is a row of numbers. */
    private static final ObjectMapper JSON = JsonMapper.builder()
            .withConfigOverride(
                    EvalPoint.class, form -> form.setFormat(JsonFormat.Value.forShape(JsonFormat.Shape.ARRAY)))
            .build();

    private final Path folder;
    private final Path note;

    TrainingCheckpoint(Path folder) {
        this.folder = folder;
        this.note = folder.resolve("training.json");
    }

    /** The best parameters so far. */
    Path best() {
        return folder.resolve("best");
    }

    /** Parameters and moments at a point. */
    Path checkpoint(TrainingProgress course) {
        return folder.resolve("step-" + course.step());
    }

    /** Notes where a training is. */
    void save(TrainingProgress course, TrainingSession session) {
        Path before = load().map(this::checkpoint).orElse(null);
        session.save(checkpoint(course), true);
        try {
            Path part = folder.resolve("training.json.part");
            Files.write(part, JSON.writeValueAsBytes(course));
            Files.move(part, note, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
            if (before != null && !before.equals(checkpoint(course))) {
                Files.deleteIfExists(before);
            }
        } catch (IOException e) {
            throw new UserException("cannot write " + note + ": " + FileFailure.reason(e), e);
        }
    }

    /**
     * Where the training was; empty if there is no note.
     *
     * @throws UserException if the note cannot be read
     */
    Optional<TrainingProgress> load() {
        if (!Files.exists(note)) {
            return Optional.empty();
        }
        try {
            TrainingProgress course = JSON.readValue(note.toFile(), TrainingProgress.class);
            if (course == null || course.curve().isEmpty()) {
                throw new UserException(note + " is damaged; remove it to begin anew");
            }
            return Optional.of(course);
        } catch (IOException e) {
            throw new UserException(note + " is damaged; remove it to begin anew", e);
        }
    }
}
