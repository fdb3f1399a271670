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
 * Files that appear in a folder together or not at all. Until {@link #commit} they lie in a hidden folder inside it, under
 * their own names, so that a model there can be opened and checked; closing without it removes them, and the folder
 * itself where it was made for them. So does the end of the virtual machine by a signal; what a killed process left is
 * removed by the next one that writes there.
 */
final class Staging implements AutoCloseable {
    private static final String PREFIX = ".onnx-prune-";

    /** A file of the hidden folder that is locked as long as the process lives. */
    private static final String LOCK = ".lock";

    /** How often removal is tried when the virtual machine ends while files are still being written. */
    private static final int TRIES = 20;

    private final Path folder;
    private final Path created;
    private final Thread atExit = new Thread(this::removeAtExit, "staging-removal");
    private Path work;
    private FileChannel lock;

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
            removeLeftovers(folder);
            Runtime.getRuntime().addShutdownHook(atExit);
            this.work = Files.createTempDirectory(folder, PREFIX);
            hold();
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
            // The virtual machine is on its way out: the hook removes the folder.
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

    /** The thread that writes goes on until the very end, so files may appear while others are removed. */
    private synchronized void removeAtExit() {
        Path root = created != null ? created : work;
        for (int i = 0; i < TRIES && work != null && Files.exists(root); i++) {
            deleteTree(root);
        }
    }

    /** Tells others that the hidden folder is in use; where files cannot be locked, nobody will remove it for us. */
    private void hold() {
        Path held = work.resolve(LOCK);
        try {
            lock = FileChannel.open(held, StandardOpenOption.CREATE, StandardOpenOption.WRITE);
            if (!tryLock(lock)) {
                unlock();
            }
        } catch (IOException e) {
            try {
                unlock();
            } catch (IOException stillFailing) {
                // A lock only serves those who come after a killed process.
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

    /** Removes the hidden folders of processes that are no more. */
    private static void removeLeftovers(Path folder) {
        try {
            for (Path left : children(folder)) {
                Path held = left.resolve(LOCK);
                if (left.getFileName().toString().startsWith(PREFIX) && Files.isRegularFile(held) && isFree(held)) {
                    deleteTree(left);
                }
            }
        } catch (IOException e) {
            // A folder that cannot be listed may still be written to.
            return;
        }
    }

    private static boolean isFree(Path held) {
        try (FileChannel channel = FileChannel.open(held, StandardOpenOption.WRITE)) {
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

    /** The topmost folder that has to be made for {@code folder}, or null. */
    private static Path firstMissing(Path folder) {
        Path missing = null;
        for (Path at = folder.toAbsolutePath(); at != null && !Files.exists(at); at = at.getParent()) {
            missing = at;
        }
        return missing;
    }
}
