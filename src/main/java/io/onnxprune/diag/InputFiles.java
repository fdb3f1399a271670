// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import java.io.IOException;
import java.nio.file.FileSystems;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.BasicFileAttributes;
import java.nio.file.attribute.FileTime;
import java.time.Duration;
import java.time.Instant;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * The input files of a run as they were when it began. They are mapped into memory and read again and again, so a change
 * during the run would mix two contents.
 *
 * <p>A file is read for its SHA-256 once, at the beginning. As long as its size, identity and times stay the same, it was not
 * written: nobody can set the time of the last change of a file. When one of them differs, the SHA-256 decides, because a
 * copy, a link or a new owner changes times too. It also decides at the end for a file that was written shortly before the
 * run, since clocks of file systems are coarse, and pages that are mapped for writing get their time late.
 */
public final class InputFiles {
    /** Pages that were written through a mapping get a new time at most this long after an earlier write. */
    private static final Duration SETTLED = Duration.ofMinutes(1);

    /** What the virtual machine says when a page of a mapped file is gone. */
    private static final String LOST_PAGE = "unsafe memory access";

    private static final String CHANGED = "unix:ctime";

    /** An input file was changed during the run. */
    public static final class Changed extends UserException {
        private static final long serialVersionUID = 1L;

        private Changed(String message, @Nullable Throwable cause) {
            super(message, cause);
        }
    }

    private final Map<Path, State> files = new LinkedHashMap<>();

    /** What the file system tells about a file. */
    private record Stamp(
            long size,
            FileTime modified,
            @Nullable FileTime changed,
            @Nullable Object identity) {
        static Optional<Stamp> of(Path file) {
            try {
                BasicFileAttributes found = Files.readAttributes(file, BasicFileAttributes.class);
                if (!found.isRegularFile()) {
                    return Optional.empty();
                }
                boolean unix =
                        FileSystems.getDefault().supportedFileAttributeViews().contains("unix");
                FileTime changed = unix ? (FileTime) Files.getAttribute(file, CHANGED) : null;
                return Optional.of(new Stamp(found.size(), found.lastModifiedTime(), changed, found.fileKey()));
            } catch (IOException e) {
                return Optional.empty();
            }
        }

        /** Whether every write after {@code time} gives another stamp. */
        boolean isSettled(Instant time) {
            FileTime last = changed == null || modified.compareTo(changed) > 0 ? modified : changed;
            return changed != null && last.toInstant().isBefore(time.minus(SETTLED));
        }
    }

    /**
     * A file at some time.
     *
     * @param hash its SHA-256; empty where it is not read for one
     */
    private record State(Stamp stamp, Instant time, Optional<String> hash) {}

    private InputFiles() {}

    /** Files with their content, as {@link #add} notes them. */
    public static InputFiles of(Collection<Path> files) {
        return new InputFiles().add(files);
    }

    /** Files that are not read, for short work on large ones. */
    public static InputFiles unread(Collection<Path> files) {
        InputFiles inputs = new InputFiles();
        files.forEach(file -> inputs.note(file, false));
        return inputs;
    }

    /** Notes files with their content. What is no file, or cannot be read, is left to those who read it. */
    public InputFiles add(Collection<Path> more) {
        more.forEach(file -> note(file, true));
        return this;
    }

    private void note(Path named, boolean read) {
        Path file = named.toAbsolutePath().normalize();
        if (files.containsKey(file)) {
            return;
        }
        Instant now = Instant.now();
        // The stamp comes first: what is written while the content is read changes it.
        Stamp.of(file).filter(stamp -> Files.isReadable(file)).ifPresent(stamp -> {
            Optional<String> hash = read ? Optional.of(Fingerprint.of(file)) : Optional.empty();
            files.put(file, new State(stamp, now, hash));
        });
    }

    /**
     * The SHA-256 of a file.
     *
     * @throws UserException if it cannot be read
     */
    public String hash(Path file) {
        add(List.of(file));
        return Optional.ofNullable(files.get(file.toAbsolutePath().normalize()))
                .flatMap(State::hash)
                .orElseGet(() -> Fingerprint.of(file));
    }

    /**
     * Checks that no file has changed, before a result gets its name.
     *
     * @throws Changed if one has
     */
    public void requireUnchanged() {
        require(change(true));
    }

    /**
     * Checks what the file system tells, on the way.
     *
     * @throws Changed if a file has
     */
    public void requireSameStamps() {
        require(change(false));
    }

    private static void require(Optional<String> change) {
        change.ifPresent(sentence -> {
            throw new Changed(sentence, null);
        });
    }

    private Optional<String> change(boolean last) {
        for (Map.Entry<Path, State> noted : files.entrySet()) {
            Path file = noted.getKey();
            State state = noted.getValue();
            Instant now = Instant.now();
            Optional<Stamp> found = Stamp.of(file);
            if (found.isEmpty()) {
                return Optional.of("the input " + file + " was removed during the run; no result was written");
            }
            Stamp stamp = found.get();
            boolean same = stamp.equals(state.stamp);
            boolean proven = same && (!last || stamp.isSettled(state.time));
            if (!proven && state.hash.isPresent() && stamp.size == state.stamp.size) {
                same = Fingerprint.of(file).equals(state.hash.get());
                noted.setValue(new State(stamp, now, state.hash));
            }
            if (!same) {
                return Optional.of(sentence(file, state.stamp.size, stamp.size));
            }
        }
        return Optional.empty();
    }

    private static String sentence(Path file, long before, long after) {
        String size = before == after ? "" : " from %,d to %,d bytes".formatted(before, after);
        return "the input " + file + " was changed" + size
                + " during the run, so the result would be of neither content; no result was written, run again";
    }

    /**
     * Does {@code work}. Where it fails and an input has changed, that is the reason to tell; else the failure stays as it is.
     *
     * @throws Changed if an input changed and the work failed
     * @throws UserException if a page of a mapped file is lost
     */
    public <T> T guard(Supplier<T> work) {
        try {
            return work.get();
        } catch (RuntimeException | InternalError e) {
            if (e instanceof Changed) {
                throw e;
            }
            Optional<String> change = change(false);
            if (change.isPresent()) {
                throw new Changed(change.get(), e);
            }
            if (isLostPage(e)) {
                throw new UserException(lostPage(), e);
            }
            throw e;
        }
    }

    /** Whether a page of a mapped file was gone when it was read. */
    public static boolean isLostPage(Throwable failure) {
        Throwable cause = failure;
        while (cause != null) {
            if (cause instanceof InternalError
                    && Objects.toString(cause.getMessage(), "").contains(LOST_PAGE)) {
                return true;
            }
            cause = cause.getCause();
        }
        return false;
    }

    /** What to tell of a lost page where no file is known. */
    public static String lostPage() {
        return "a page of a mapped file could not be read: a file in use was cut short, or its disk failed or is full;"
                + " run again";
    }
}
