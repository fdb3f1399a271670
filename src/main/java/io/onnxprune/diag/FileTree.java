// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import java.io.IOException;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Comparator;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/** Work on folders with all that is in them. */
public final class FileTree {
    /** How many links may lead to one another. */
    private static final int MAX_LINKS = 40;

    private FileTree() {}

    /** Deletes a file or a folder with its content. Links are deleted, not followed. What cannot be deleted remains. */
    public static void delete(Path root) {
        try (Stream<Path> inside = Files.walk(root)) {
            for (Path path : inside.sorted(Comparator.reverseOrder()).toList()) {
                Files.deleteIfExists(path);
            }
        } catch (IOException e) {
            // Best effort: nothing depends on it.
            return;
        }
    }

    /** Makes a file or folder last after a power failure. On a system that cannot do this for folders, nothing happens. */
    public static void sync(Path path) throws IOException {
        boolean folder = Files.isDirectory(path);
        // A file that was copied may be one that cannot be opened for writing.
        try (FileChannel channel = FileChannel.open(path, StandardOpenOption.READ)) {
            channel.force(true);
        } catch (IOException e) {
            if (!folder) {
                throw e;
            }
        }
    }

    /**
     * The place that a path leads to: absolute, without links and without {@code ..}. Unlike with {@link Path#toRealPath}, its end
     * need not exist, also where a link leads there.
     */
    public static Path place(Path path) {
        return place(path.toAbsolutePath(), MAX_LINKS);
    }

    private static Path place(Path path, int links) {
        try {
            return path.toRealPath();
        } catch (IOException e) {
            // It does not exist, or may not be read.
        }
        Path parent = path.getParent();
        if (parent == null) {
            return path;
        }
        Path folder = place(parent, links);
        String name = path.getFileName().toString();
        if (name.equals("..") || name.equals(".")) {
            return name.equals(".") || folder.getParent() == null ? folder : folder.getParent();
        }
        Path here = folder.resolve(name);
        Path target = links > 0 ? link(here) : null;
        return target == null ? here : place(folder.resolve(target), links - 1);
    }

    private static @Nullable Path link(Path path) {
        try {
            return Files.isSymbolicLink(path) ? Files.readSymbolicLink(path) : null;
        } catch (IOException e) {
            return null;
        }
    }
}
