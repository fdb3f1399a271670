// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.runtime.TrainingSession;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;

/**
 * What a training leaves in its folder so that it can go on when it was stopped: after each look a checkpoint with the moments of
 * the optimizer, and then a note that names it. A stop at any time leaves the last pair or the one before.
 */
final class TrainingCheckpoint {
    private static final ObjectMapper JSON = new ObjectMapper();

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
        ObjectNode content =
                JSON.createObjectNode().put("lowest", course.lowest()).put("misses", course.misses());
        ArrayNode curve = content.putArray("curve");
        for (EvalPoint look : course.curve()) {
            curve.addArray()
                    .add(look.step())
                    .add(look.loss())
                    .add(look.heldOut())
                    .add(look.learningRate())
                    .add(look.tokensPerSecond());
        }
        try {
            Path part = folder.resolve("training.json.part");
            Files.write(part, JSON.writeValueAsBytes(content));
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
            JsonNode content = JSON.readTree(note.toFile());
            List<EvalPoint> curve = new ArrayList<>();
            for (JsonNode look : content.path("curve")) {
                curve.add(new EvalPoint(
                        look.path(0).asInt(),
                        look.path(1).asDouble(Double.NaN),
                        look.path(2).asDouble(),
                        look.path(3).asDouble(),
                        look.path(4).asDouble()));
            }
            if (curve.isEmpty()) {
                throw new UserException(note + " is damaged; remove it to begin anew");
            }
            return Optional.of(new TrainingProgress(
                    content.path("lowest").asDouble(), content.path("misses").asInt(), curve));
        } catch (IOException e) {
            throw new UserException(note + " is damaged; remove it to begin anew", e);
        }
    }
}
