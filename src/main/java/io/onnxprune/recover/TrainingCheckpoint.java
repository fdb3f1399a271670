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
 * The checkpoint of a training, from which it can resume after a stop. After each evaluation it writes a file with the
 * parameters and the optimizer's moments, and then a state file that refers to it. A stop at any time leaves the last
 * pair or the one before.
 */
final class TrainingCheckpoint {
    private static final ObjectMapper JSON = new ObjectMapper();

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
        ObjectNode content =
                JSON.createObjectNode().put("lowest", progress.lowest()).put("misses", progress.sinceBest());
        ArrayNode curve = content.putArray("curve");
        for (EvalPoint point : progress.curve()) {
            curve.addArray()
                    .add(point.step())
                    .add(point.loss())
                    .add(point.heldOut())
                    .add(point.learningRate())
                    .add(point.tokensPerSecond());
        }
        try {
            Path part = folder.resolve("training.json.part");
            Files.write(part, JSON.writeValueAsBytes(content));
            Files.move(part, stateFile, StandardCopyOption.REPLACE_EXISTING, StandardCopyOption.ATOMIC_MOVE);
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
            JsonNode content = JSON.readTree(stateFile.toFile());
            List<EvalPoint> curve = new ArrayList<>();
            for (JsonNode point : content.path("curve")) {
                curve.add(new EvalPoint(
                        point.path(0).asInt(),
                        point.path(1).asDouble(Double.NaN),
                        point.path(2).asDouble(),
                        point.path(3).asDouble(),
                        point.path(4).asDouble()));
            }
            if (curve.isEmpty()) {
                throw new UserException(stateFile + " is damaged; remove it to start again");
            }
            return Optional.of(new TrainingProgress(
                    content.path("lowest").asDouble(), content.path("misses").asInt(), curve));
        } catch (IOException e) {
            throw new UserException(stateFile + " is damaged; remove it to start again", e);
        }
    }
}
