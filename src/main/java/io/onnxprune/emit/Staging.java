package io.onnxprune.emit;

import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Comparator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;

/**
 * Files that appear in a folder together or not at all. Until {@link #commit} they have temporary names; closing without
 * it removes them, and the folder itself where it was made for them.
 */
final class Staging implements AutoCloseable {
    private final Path created;
    private final Map<Path, Path> files = new LinkedHashMap<>();
    private boolean committed;

    /**
     * Opens {@code folder}, and creates it if there is none.
     *
     * @throws UserException if it cannot be created
     */
    Staging(Path folder) {
        created = firstMissing(folder);
        try {
            Files.createDirectories(folder);
        } catch (IOException e) {
            close();
            throw failure(folder, e);
        }
    }

    /** Writes {@code content} for {@code target}. */
    void write(Path target, byte[] content) {
        try {
            Files.write(temporary(target), content);
        } catch (IOException e) {
            throw failure(target, e);
        }
    }

    /** Copies {@code source} for {@code target}. */
    void copy(Path source, Path target) {
        try {
            Files.copy(source, temporary(target), StandardCopyOption.REPLACE_EXISTING);
        } catch (IOException e) {
            throw failure(target, e);
        }
    }

    /** Gives all files their names. */
    void commit() {
        for (Map.Entry<Path, Path> file : files.entrySet()) {
            try {
                Files.move(file.getValue(), file.getKey(), StandardCopyOption.REPLACE_EXISTING);
            } catch (IOException e) {
                throw new UserException("cannot write " + file.getKey() + ": " + OutputTarget.reason(e), e);
            }
        }
        committed = true;
    }

    @Override
    public void close() {
        if (committed) {
            return;
        }
        files.values().forEach(Staging::delete);
        if (created != null && Files.exists(created)) {
            try (Stream<Path> inside = Files.walk(created)) {
                List<Path> all = inside.sorted(Comparator.reverseOrder()).toList();
                all.forEach(Staging::delete);
            } catch (IOException e) {
                // Best effort: the failure that led here is the one to report.
                return;
            }
        }
    }

    private Path temporary(Path target) {
        if (Files.isDirectory(target)) {
            throw new UserException("cannot write " + target + ": it is a folder; nothing was written");
        }
        Path temporary = target.resolveSibling(target.getFileName() + ".part");
        files.put(target, temporary);
        return temporary;
    }

    private static UserException failure(Path target, IOException e) {
        return new UserException("cannot write " + target + ": " + OutputTarget.reason(e) + "; nothing was written", e);
    }

    /** The topmost folder that has to be made for {@code folder}, or null. */
    private static Path firstMissing(Path folder) {
        Path missing = null;
        for (Path at = folder.toAbsolutePath(); at != null && !Files.exists(at); at = at.getParent()) {
            missing = at;
        }
        return missing;
    }

    private static void delete(Path path) {
        try {
            Files.deleteIfExists(path);
        } catch (IOException e) {
            // Best effort: the failure that led here is the one to report.
            return;
        }
    }
}
