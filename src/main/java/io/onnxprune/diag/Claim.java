// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.channels.FileLock;
import java.nio.channels.OverlappingFileLockException;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;

/**
 * A name in a folder that one run at a time uses, for files that it finds again when it goes on after a stop. Of two equal runs at
 * the same time, the second one gets another name: {@code run-2-KEY} in place of {@code run-KEY}. The end of the process, also by
 * a signal, gives the name back.
 *
 * <p>All names are locked in one file of the folder, each at a byte of its own. So no lock file has to be removed, which could hit
 * one that is in use. On a file system without locks every name is free.
 */
public final class Claim implements AutoCloseable {
    private static final String LOCKS = ".locks";
    /** More equal runs at the same time share the last name. */
    private static final int MAX_EQUAL = 64;

    private static final int HASH_DIGITS = 15;
    /** Closing any channel of a file gives up all locks of the process on it, so there is one channel for all claims. */
    private static final Map<Path, Locks> OPEN = new HashMap<>();

    private final String name;
    private final int number;
    private final @Nullable FileLock lock;
    private final @Nullable Locks locks;

    /** The open file with the locks of a folder. */
    private static final class Locks {
        private final Path file;
        private final FileChannel channel;
        private int users;

        Locks(Path file, FileChannel channel) {
            this.file = file;
            this.channel = channel;
        }
    }

    private Claim(String name, int number, @Nullable FileLock lock, @Nullable Locks locks) {
        this.name = name;
        this.number = number;
        this.lock = lock;
        this.locks = locks;
    }

    /**
     * Claims a name.
     *
     * @param folder its folder, which is created if it is missing
     * @param kind how the name begins
     * @param key what equal runs have in common
     * @param preferred whether a name is better than one that comes before it, such as one with a checkpoint to go on from
     * @throws UserException if the folder cannot be created
     */
    public static Claim of(Path folder, String kind, String key, Predicate<String> preferred) {
        synchronized (OPEN) {
            Claim first = null;
            for (int number = 1; number <= MAX_EQUAL; number++) {
                String name = name(kind, key, number);
                boolean wanted = preferred.test(name);
                if (first != null && !wanted) {
                    continue;
                }
                Claim claim = claim(folder, name, number);
                if (claim != null && wanted) {
                    closeIfAny(first);
                    return claim;
                }
                first = claim == null ? first : claim;
            }
            return first == null ? new Claim(name(kind, key, MAX_EQUAL), MAX_EQUAL, null, null) : first;
        }
    }

    private static void closeIfAny(@Nullable Claim claim) {
        if (claim != null) {
            claim.close();
        }
    }

    private static String name(String kind, String key, int number) {
        return number == 1 ? kind + '-' + key : kind + '-' + number + '-' + key;
    }

    /** Claims one name; null if another run has it. */
    private static @Nullable Claim claim(Path folder, String name, int number) {
        Locks locks;
        try {
            locks = open(folder);
        } catch (IOException e) {
            throw new UserException("cannot write to " + folder + ": " + FileFailure.reason(e), e);
        }
        try {
            FileLock lock = locks.channel.tryLock(place(name), 1, false);
            if (lock == null) {
                leave(locks);
                return null;
            }
            return new Claim(name, number, lock, locks);
        } catch (OverlappingFileLockException e) {
            leave(locks);
            return null;
        } catch (IOException e) {
            return new Claim(name, number, null, locks);
        }
    }

    private static Locks open(Path folder) throws IOException {
        Path file = Files.createDirectories(folder).toRealPath().resolve(LOCKS);
        Locks locks = OPEN.get(file);
        if (locks == null) {
            locks = new Locks(
                    file,
                    FileChannel.open(
                            file, StandardOpenOption.CREATE, StandardOpenOption.WRITE, LinkOption.NOFOLLOW_LINKS));
            OPEN.put(file, locks);
        }
        locks.users++;
        return locks;
    }

    private static void leave(Locks locks) {
        locks.users--;
        if (locks.users == 0) {
            OPEN.remove(locks.file);
            try {
                locks.channel.close();
            } catch (IOException e) {
                // The locks end with the process.
            }
        }
    }

    private static long place(String name) {
        return Long.parseLong(Fingerprint.of(List.of(name), List.of()).substring(0, HASH_DIGITS), 16);
    }

    /** The claimed name. */
    public String name() {
        return name;
    }

    /** Whether no other run that is equal goes on at this time. */
    public boolean isFirst() {
        return number == 1;
    }

    /** Gives the name back. */
    @Override
    public void close() {
        synchronized (OPEN) {
            Locks held = locks;
            if (held == null) {
                return;
            }
            try {
                if (lock != null && lock.isValid()) {
                    lock.release();
                    leave(held);
                } else if (lock == null) {
                    leave(held);
                }
            } catch (IOException e) {
                // The lock ends with the process.
            }
        }
    }
}
