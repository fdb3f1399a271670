// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.util.Comparator;
import java.util.List;
import java.util.stream.Stream;

/**
 * Files that appear in a folder all together or not at all. Until {@link #commit} they are in a hidden folder inside
 * it under their own names, so that a model there can be opened and checked. Closing without a commit removes them,
 * and also the folder if it was created for them. So does the end of the virtual machine by a signal. The hidden
 * folder of a killed process is removed by the next process that writes there.
 */
final class Staging implements AutoCloseable {
    private static final String PREFIX = ".onnx-prune-";

    /** A file of the hidden folder that is locked while the process lives. */
    private static final String LOCK = ".lock";

    /** Maximal number of removals when the virtual machine ends while files are still being written. */
    private static final int MAX_REMOVALS = 20;

    private final Path folder;
    private final Path created;
    private final Thread atExit = new Thread(this::removeAtExit, "staging-removal");
    private Path work;
    private FileChannel lock;

    /**
     * Opens {@code folder} and creates it if it does not exist.
     *
     * @throws UserException when it cannot be created
     */
    Staging(Path folder) {
        this.folder = folder;
        this.created = firstMissing(folder);
        try {
            Files.createDirectories(folder);
            removeLeftovers(folder);
            Runtime.getRuntime().addShutdownHook(atExit);
            this.work = Files.createTempDirectory(folder, PREFIX);
            hold();
        } catch (IOException e) {
            close();
            throw failure(folder, e);
        }
    }

    /**
     * The staged path of {@code target}.
     *
     * @throws UserException when {@code target} is a folder
     */
    Path path(Path target) {
        if (Files.isDirectory(target)) {
            throw new UserException("cannot write " + target + ": it is a folder; nothing was written");
        }
        return work.resolve(target.getFileName());
    }

    /** Stages a file with the given content. */
    void write(Path target, byte[] content) {
        try {
            Files.write(path(target), content);
        } catch (IOException e) {
            throw failure(target, e);
        }
    }

    /** Stages a copy of {@code source}. */
    void copy(Path source, Path target) {
        try {
            Files.copy(source, path(target), StandardCopyOption.REPLACE_EXISTING);
        } catch (IOException e) {
            throw failure(target, e);
        }
    }

    /** Moves all staged files to their targets. */
    synchronized void commit() {
        try {
            unlock();
            for (Path file : children(work)) {
                Files.move(file, folder.resolve(file.getFileName()), StandardCopyOption.REPLACE_EXISTING);
            }
            Files.delete(work);
            work = null;
        } catch (IOException e) {
            throw failure(folder, e);
        }
    }

    @Override
    public synchronized void close() {
        try {
            Runtime.getRuntime().removeShutdownHook(atExit);
        } catch (IllegalStateException e) {
            // The virtual machine is shutting down; the hook removes the folder.
            return;
        }
        try {
            unlock();
        } catch (IOException e) {
            // Best effort: the failure that led here is the one to report.
        }
        if (work != null) {
            deleteTree(created != null ? created : work);
        } else if (created != null && isEmpty(created)) {
            deleteTree(created);
        }
    }

    /** Removes the folder repeatedly, because the writing thread runs until the end and may create more files. */
    private synchronized void removeAtExit() {
        Path root = created != null ? created : work;
        for (int i = 0; i < MAX_REMOVALS && work != null && Files.exists(root); i++) {
            deleteTree(root);
        }
    }

    /**
     * Locks the hidden folder against removal by other processes. On a file system without locks it is never removed
     * by others.
     */
    private void hold() {
        Path lockFile = work.resolve(LOCK);
        try {
            lock = FileChannel.open(lockFile, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
            if (!tryLock(lock)) {
                unlock();
            }
        } catch (IOException e) {
            try {
                unlock();
            } catch (IOException stillFailing) {
                // The lock only matters after a killed process.
                return;
            }
        }
    }

    private void unlock() throws IOException {
        if (lock != null) {
            lock.close();
            lock = null;
            Files.deleteIfExists(work.resolve(LOCK));
        }
    }

    /** Removes the hidden folders of ended processes. */
    private static void removeLeftovers(Path folder) {
        try {
            for (Path child : children(folder)) {
                Path lockFile = child.resolve(LOCK);
                if (child.getFileName().toString().startsWith(PREFIX)
                        && Files.isRegularFile(lockFile)
                        && isFree(lockFile)) {
                    deleteTree(child);
                }
            }
        } catch (IOException e) {
            // A folder that cannot be listed may still be writable.
            return;
        }
    }

    private static boolean isFree(Path lockFile) {
        try (FileChannel channel = FileChannel.open(lockFile, StandardOpenOption.WRITE)) {
            return tryLock(channel);
        } catch (IOException e) {
            return false;
        }
    }

    private static boolean tryLock(FileChannel channel) throws IOException {
        try {
            FileLock found = channel.tryLock();
            return found != null;
        } catch (OverlappingFileLockException e) {
            return false;
        }
    }

    private static List<Path> children(Path folder) throws IOException {
        try (Stream<Path> inside = Files.list(folder)) {
            return inside.toList();
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

    /** The topmost ancestor of {@code folder} that does not exist; null when {@code folder} exists. */
    private static Path firstMissing(Path folder) {
        Path missing = null;
        for (Path at = folder.toAbsolutePath(); at != null && !Files.exists(at); at = at.getParent()) {
            missing = at;
        }
        return missing;
    }
}
