// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.TensorFile.DamagedException;
import io.onnxprune.ir.TensorFile.Form;
import java.io.IOException;
import java.nio.file.DirectoryStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;

/**
 * A file that says how far some work is, in the layout of {@link TensorFile}. It is replaced as a whole, so a stop at any time leaves
 * the checkpoint before or the one after.
 */
public final class CheckpointFile {
    private final Path file;

    /**
     * The content of a checkpoint.
     *
     * @param values text by key
     * @param tensors by name; those of a checkpoint that was read are mapped from its file
     */
    public record Content(Map<String, String> values, Map<String, Tensor> tensors) {}

    public CheckpointFile(Path file) {
        this.file = file;
    }

    /** Whether there is a checkpoint. */
    public boolean exists() {
        return Files.exists(file);
    }

    /**
     * Replaces the checkpoint.
     *
     * @throws UserException if it cannot be written
     */
    public void save(Content content) {
        Map<String, Form> forms = new LinkedHashMap<>();
        content.tensors.forEach((name, tensor) -> forms.put(name, Form.of(tensor)));
        try {
            Files.createDirectories(file.getParent());
            removeUnfinished();
            try (TensorFile target = TensorFile.named(file, forms, content.values)) {
                for (Map.Entry<String, Tensor> tensor : content.tensors.entrySet()) {
                    target.write(tensor.getKey(), tensor.getValue().bytes());
                }
                target.complete();
            }
        } catch (IOException e) {
            throw new UserException(
                    "cannot write a checkpoint to %s: %s; free space there or name another --work-dir"
                            .formatted(file.getParent(), FileFailure.reason(e)),
                    e);
        }
    }

    /** A process that was killed while it wrote left a file of this name's that nobody else writes. */
    private void removeUnfinished() throws IOException {
        String name = file.getFileName().toString();
        try (DirectoryStream<Path> files = Files.newDirectoryStream(file.getParent(), name + ".*.part")) {
            for (Path left : files) {
                Files.deleteIfExists(left);
            }
        }
    }

    /**
     * Reads the checkpoint.
     *
     * @param reader makes something of its content; what it throws for a value that cannot be means that the file is damaged
     * @return empty if there is no checkpoint
     * @throws UserException if it cannot be read, or is damaged
     */
    public <T> Optional<T> load(Function<Content, T> reader) {
        if (!exists()) {
            return Optional.empty();
        }
        try (TensorFile source = TensorFile.open(file)) {
            source.requireWhole();
            Map<String, Tensor> tensors = new HashMap<>();
            for (String name : source.names()) {
                tensors.put(name, source.tensor(name));
            }
            return Optional.of(reader.apply(new Content(source.metadata(), tensors)));
        } catch (DamagedException | IllegalArgumentException e) {
            throw new UserException("the checkpoint " + file + " is damaged; remove it, or leave out --resume", e);
        } catch (IOException e) {
            throw new UserException("cannot read the checkpoint " + file + ": " + FileFailure.reason(e), e);
        }
    }

    /**
     * Removes the checkpoint.
     *
     * @throws UserException if it cannot be removed
     */
    public void remove() {
        try {
            Files.deleteIfExists(file);
        } catch (IOException e) {
            throw new UserException("cannot remove the checkpoint " + file + ": " + FileFailure.reason(e), e);
        }
    }
}
