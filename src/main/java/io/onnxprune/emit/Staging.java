package io.onnxprune.emit;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Comparator;
import java.util.stream.Stream;

/**
 * Files that appear in a folder together or not at all. Until {@link #commit} they lie in a hidden folder inside it, under
 * their own names, so that a model there can be opened and checked; closing without it removes them, and the folder
 * itself where it was made for them.
 */
final class Staging implements AutoCloseable {
    private final Path folder;
    private final Path created;
    private Path work;

    /**
     * Opens {@code folder}, and creates it if there is none.
     *
     * @throws UserException if it cannot be created
     */
    Staging(Path folder) {
        this.folder = folder;
        this.created = firstMissing(folder);
        try {
            Files.createDirectories(folder);
            this.work = Files.createTempDirectory(folder, ".onnx-prune-");
        } catch (IOException e) {
            close();
            throw failure(folder, e);
        }
    }

    /** Where the file that will be {@code target} lies until then. */
    Path path(Path target) {
        if (Files.isDirectory(target)) {
            throw new UserException("cannot write " + target + ": it is a folder; nothing was written");
        }
        return work.resolve(target.getFileName());
    }

    /** Writes {@code content} for {@code target}. */
    void write(Path target, byte[] content) {
        try {
            Files.write(path(target), content);
        } catch (IOException e) {
            throw failure(target, e);
        }
    }

    /** Copies {@code source} for {@code target}. */
    void copy(Path source, Path target) {
        try {
            Files.copy(source, path(target), StandardCopyOption.REPLACE_EXISTING);
        } catch (IOException e) {
            throw failure(target, e);
        }
    }

    /** Moves all files to where they belong. */
    void commit() {
        try (Stream<Path> staged = Files.list(work)) {
            for (Path file : staged.toList()) {
                Files.move(file, folder.resolve(file.getFileName()), StandardCopyOption.REPLACE_EXISTING);
            }
            Files.delete(work);
            work = null;
        } catch (IOException e) {
            throw failure(folder, e);
        }
    }

    @Override
    public void close() {
        if (work != null) {
            deleteTree(created != null ? created : work);
        } else if (created != null && isEmpty(created)) {
            deleteTree(created);
        }
    }

    private static boolean isEmpty(Path folder) {
        try (Stream<Path> inside = Files.walk(folder)) {
            return inside.noneMatch(Files::isRegularFile);
        } catch (IOException e) {
            return false;
        }
    }

    private static void deleteTree(Path root) {
        try (Stream<Path> inside = Files.walk(root)) {
            for (Path path : inside.sorted(Comparator.reverseOrder()).toList()) {
                Files.deleteIfExists(path);
            }
        } catch (IOException e) {
            // Best effort: the failure that led here is the one to report.
            return;
        }
    }

    private static UserException failure(Path target, IOException e) {
        return new UserException("cannot write " + target + ": " + FileFailure.reason(e) + "; nothing was written", e);
    }

    /** The topmost folder that has to be made for {@code folder}, or null. */
    private static Path firstMissing(Path folder) {
        Path missing = null;
        for (Path at = folder.toAbsolutePath(); at != null && !Files.exists(at); at = at.getParent()) {
            missing = at;
        }
        return missing;
    }
}
