// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.FileTree;
import io.onnxprune.diag.UserException;
import io.onnxprune.diag.WholeFile;
import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.FileSystemException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.nio.file.attribute.UserPrincipal;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.stream.Stream;

/**
 * Files that appear in a folder, or in folders inside it, all together or not at all. Until {@link #commit} they are in a
 * hidden folder inside it under their own names, so that a model there can be opened and checked. Closing without a commit removes them,
 * and also the folder if it was created for them and is empty. So does the end of the virtual machine by a signal.
 *
 * <p>A commit of one file is one step. Of several files, the old ones are first moved aside into the hidden folder, so
 * that never old and new ones lie together; the model is the first to go and the last to come. The hidden folder of a
 * killed process is removed by the next process that writes there. If the process was killed in its commit, that one
 * first goes on with it: until then the old files and the new ones are all in the two folders.
 */
final class Staging implements AutoCloseable {
    private static final String PREFIX = ".onnx-prune-";

    /** A file of the hidden folder that is locked while the process lives. */
    private static final String LOCK = ".lock";

    /** A file of the hidden folder that says that all files are there and are to get their names. */
    private static final String COMPLETE = ".complete";

    /** Names of old files in the hidden folder begin with this. */
    private static final String OLD = ".old-";

    /** A process locks its hidden folder long before this time is over. */
    private static final Duration BEGINNING = Duration.ofHours(1);

    /** Maximal number of removals when the virtual machine ends while files are still being written. */
    private static final int MAX_REMOVALS = 20;

    /** Hidden folders of this process. Opening a lock file again would give up the lock of the whole process. */
    private static final Set<Path> OWN = ConcurrentHashMap.newKeySet();

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
            Runtime.getRuntime().addShutdownHook(atExit);
            this.work = Files.createTempDirectory(folder, PREFIX);
            OWN.add(work.toRealPath());
            hold();
            removeLeftovers();
        } catch (IOException e) {
            close();
            throw failure(folder, e);
        }
    }

    /**
     * The staged path of {@code target}, a file in the folder or in a folder inside it.
     *
     * @throws UserException when {@code target} is a folder, or its folder cannot be created
     */
    Path path(Path target) {
        if (Files.isDirectory(target)) {
            throw new UserException("cannot write " + target + ": it is a folder; nothing was written");
        }
        Path staged = work.resolve(folder.toAbsolutePath().relativize(target.toAbsolutePath()));
        try {
            Files.createDirectories(staged.getParent());
        } catch (IOException e) {
            throw failure(target, e);
        }
        return staged;
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

    /**
     * Moves all staged files to their targets.
     *
     * @throws UserException if that fails; the old files are then where they were
     */
    synchronized void commit() {
        List<Path> named = new ArrayList<>();
        try {
            List<Path> staged = staged(work);
            for (Path file : staged) {
                FileTree.sync(file);
            }
            if (staged.size() > 1) {
                WholeFile.write(work.resolve(COMPLETE), new byte[0]);
            }
            giveNames(work, folder, named);
            FileTree.sync(folder);
            leave();
        } catch (IOException e) {
            restore(named);
            throw failure(folder, e);
        }
    }

    /** The staged files, the model last. */
    private static List<Path> staged(Path work) throws IOException {
        return files(work).stream()
                .filter(file -> !name(file).equals(LOCK) && !name(file).equals(COMPLETE))
                .filter(file -> !name(file).startsWith(OLD))
                .sorted(Comparator.comparing((Path file) -> name(file).endsWith(".onnx"))
                        .thenComparing(Path::getFileName))
                .toList();
    }

    /** Moves staged files to their places, and what is there aside. This may go on where another process was stopped. */
    private static void giveNames(Path work, Path folder, List<Path> named) throws IOException {
        List<Path> staged = staged(work);
        if (Files.exists(work.resolve(COMPLETE))) {
            for (int i = staged.size() - 1; i >= 0; i--) {
                Path target = folder.resolve(work.relativize(staged.get(i)));
                if (Files.isDirectory(target, LinkOption.NOFOLLOW_LINKS)) {
                    throw new FileSystemException(target.toString(), null, name(target) + " is a folder");
                }
                if (Files.exists(target, LinkOption.NOFOLLOW_LINKS)) {
                    Path aside = staged.get(i).resolveSibling(OLD + name(target));
                    Files.move(target, aside, StandardCopyOption.ATOMIC_MOVE);
                }
            }
        }
        for (Path file : staged) {
            Path target = folder.resolve(work.relativize(file));
            Files.createDirectories(target.getParent());
            Files.move(file, target, StandardCopyOption.ATOMIC_MOVE);
            named.add(target);
        }
        for (Path parent : named.stream().map(Path::getParent).distinct().toList()) {
            FileTree.sync(parent);
        }
    }

    /** Takes back a commit that failed. What cannot be moved back stays in the hidden folder. */
    private void restore(List<Path> named) {
        try {
            Files.deleteIfExists(work.resolve(COMPLETE));
            for (Path target : named) {
                Files.move(target, work.resolve(folder.relativize(target)), StandardCopyOption.ATOMIC_MOVE);
            }
            for (Path file : files(work)) {
                if (name(file).startsWith(OLD)) {
                    Path place = folder.resolve(work.relativize(file));
                    Path target = place.resolveSibling(name(file).substring(OLD.length()));
                    Files.move(file, target, StandardCopyOption.ATOMIC_MOVE);
                }
            }
        } catch (IOException e) {
            // The hidden folder keeps what is in it, because it is the only copy. Without a lock file it stays.
            abandon();
        }
    }

    private void abandon() {
        try {
            unlock();
        } catch (IOException e) {
            // The lock ends with the process.
        }
        work = null;
    }

    /** Removes the hidden folder, the lock file last: without one, nobody else would remove the rest. */
    private void leave() throws IOException {
        OWN.remove(work.toRealPath());
        for (Path file : children(work)) {
            if (!name(file).equals(LOCK)) {
                FileTree.delete(file);
            }
        }
        unlock();
        FileTree.delete(work);
        work = null;
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
            if (work != null) {
                leave();
            }
        } catch (IOException e) {
            // Best effort: the failure that led here is the one to report.
        }
        removeCreated();
    }

    /** Removes the folders that were created for the files and are empty. Others may have put files there since. */
    private void removeCreated() {
        if (created == null) {
            return;
        }
        Path end = created.toAbsolutePath().getParent();
        try {
            for (Path inner : Files.isDirectory(folder) ? children(folder) : List.<Path>of()) {
                if (Files.isDirectory(inner, LinkOption.NOFOLLOW_LINKS)) {
                    Files.deleteIfExists(inner);
                }
            }
            for (Path at = folder.toAbsolutePath(); at != null && !at.equals(end); at = at.getParent()) {
                Files.deleteIfExists(at);
            }
        } catch (IOException e) {
            // A folder that is not empty stays.
            return;
        }
    }

    /** Removes the folder repeatedly, because the writing thread runs until the end and may create more files. */
    private synchronized void removeAtExit() {
        for (int i = 0; i < MAX_REMOVALS && work != null && Files.exists(work); i++) {
            FileTree.delete(work);
        }
        removeCreated();
    }

    /**
     * Locks the hidden folder against removal by other processes. On a file system without locks it is never removed
     * by others. The lock file gets its name when it is locked.
     */
    private void hold() {
        Path lockFile = work.resolve(LOCK);
        Path unnamed = work.resolve(LOCK + ".new");
        try {
            lock = FileChannel.open(unnamed, StandardOpenOption.CREATE_NEW, StandardOpenOption.WRITE);
            if (tryLock(lock)) {
                Files.move(unnamed, lockFile, StandardCopyOption.ATOMIC_MOVE);
            } else {
                Files.delete(unnamed);
                unlock();
            }
        } catch (IOException e) {
            try {
                Files.deleteIfExists(unnamed);
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

    /** Removes the hidden folders that ended processes of the same user left, and ends the commits that they began. */
    private void removeLeftovers() {
        try {
            UserPrincipal user = Files.getOwner(work, LinkOption.NOFOLLOW_LINKS);
            for (Path child : children(folder)) {
                if (name(child).startsWith(PREFIX)
                        && !OWN.contains(child.toRealPath())
                        && Files.isDirectory(child, LinkOption.NOFOLLOW_LINKS)
                        && Files.getOwner(child, LinkOption.NOFOLLOW_LINKS).equals(user)) {
                    removeIfFree(child);
                }
            }
        } catch (IOException e) {
            // A folder that cannot be listed may still be writable.
            return;
        }
    }

    private void removeIfFree(Path left) throws IOException {
        if (!Files.isRegularFile(left.resolve(LOCK), LinkOption.NOFOLLOW_LINKS)) {
            // Its process was killed before it locked it, or is about to lock it.
            Instant changed = Files.getLastModifiedTime(left).toInstant();
            if (children(left).isEmpty() && changed.isBefore(Instant.now().minus(BEGINNING))) {
                FileTree.delete(left);
            }
            return;
        }
        try (FileChannel channel = FileChannel.open(left.resolve(LOCK), StandardOpenOption.WRITE)) {
            if (!tryLock(channel)) {
                return;
            }
            if (Files.exists(left.resolve(COMPLETE))) {
                giveNames(left, folder, new ArrayList<>());
                FileTree.sync(folder);
            }
            FileTree.delete(left);
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

    private static String name(Path file) {
        return file.getFileName().toString();
    }

    /** The files in a folder and in the folders inside it. */
    private static List<Path> files(Path folder) throws IOException {
        try (Stream<Path> inside = Files.walk(folder)) {
            return inside.filter(file -> !Files.isDirectory(file, LinkOption.NOFOLLOW_LINKS))
                    .toList();
        }
    }

    private static List<Path> children(Path folder) throws IOException {
        try (Stream<Path> inside = Files.list(folder)) {
            return inside.toList();
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
