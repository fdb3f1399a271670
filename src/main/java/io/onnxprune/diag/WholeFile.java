// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.nio.file.StandardOpenOption;
import java.security.SecureRandom;
import java.util.HexFormat;

/**
 * A file that appears whole or not at all. Until {@link #complete} it has a name beside its target that nobody can guess. It is
 * created there, so no link and no file of others is opened, with the usual mode of a new file. It then replaces its target in one
 * step. A link that is the target is replaced, not followed.
 */
public final class WholeFile implements AutoCloseable {
    private static final SecureRandom RANDOM = new SecureRandom();
    private static final int RANDOM_BYTES = 8;
    /** The part of the target's name that the other name begins with. A name may have 255 bytes. */
    private static final int MAX_CHARACTERS = 55;

    private final Path target;
    private final Path part;
    private final FileChannel channel;
    private boolean complete;

    private WholeFile(Path target, Path part, FileChannel channel) {
        this.target = target;
        this.part = part;
        this.channel = channel;
    }

    /** Creates the file under its other name, for reading and writing. */
    public static WholeFile create(Path target) throws IOException {
        Path part = unpredictable(target);
        FileChannel channel = FileChannel.open(
                part, StandardOpenOption.CREATE_NEW, StandardOpenOption.READ, StandardOpenOption.WRITE);
        return new WholeFile(target, part, channel);
    }

    /** A name beside {@code target} that nobody can guess. It begins with that of {@code target} and ends in {@code .part}. */
    public static Path unpredictable(Path target) {
        String name = target.getFileName().toString();
        int count = Math.min(MAX_CHARACTERS, name.codePointCount(0, name.length()));
        return target.resolveSibling(name.substring(0, name.offsetByCodePoints(0, count)) + '.' + random() + ".part");
    }

    /** Random hexadecimal digits. */
    public static String random() {
        byte[] bytes = new byte[RANDOM_BYTES];
        RANDOM.nextBytes(bytes);
        return HexFormat.of().formatHex(bytes);
    }

    /**
     * Writes a whole file that lasts after a power failure. A device, such as /dev/stdout, is written to.
     *
     * @throws IOException if that fails; the target is then as it was
     */
    public static void write(Path target, byte[] content) throws IOException {
        if (isDevice(target)) {
            Files.write(target, content);
            return;
        }
        try (WholeFile file = create(target)) {
            for (ByteBuffer bytes = ByteBuffer.wrap(content); bytes.hasRemaining(); ) {
                file.channel.write(bytes);
            }
            file.channel.force(true);
            file.complete();
        }
        Path folder = target.toAbsolutePath().getParent();
        if (folder != null) {
            FileTree.sync(folder);
        }
    }

    /** Whether a path is written to in place: a device, a pipe, or one of the links to them that a system has. */
    public static boolean isDevice(Path path) {
        Path absolute = path.toAbsolutePath().normalize();
        boolean other = Files.exists(path) && !Files.isRegularFile(path) && !Files.isDirectory(path);
        return other && !Files.isSymbolicLink(path)
                || Files.exists(path, LinkOption.NOFOLLOW_LINKS)
                        && (absolute.startsWith("/dev") || absolute.startsWith("/proc"));
    }

    /** The open file. */
    public FileChannel channel() {
        return channel;
    }

    /** Gives the file its name. It stays open. */
    public void complete() throws IOException {
        Files.move(part, target, StandardCopyOption.ATOMIC_MOVE, StandardCopyOption.REPLACE_EXISTING);
        complete = true;
    }

    /** Closes the file. One that is not complete is deleted. */
    @Override
    public void close() throws IOException {
        try {
            channel.close();
        } finally {
            if (!complete) {
                Files.deleteIfExists(part);
            }
        }
    }
}
