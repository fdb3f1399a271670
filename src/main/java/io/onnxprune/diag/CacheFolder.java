// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.InvalidPathException;
import java.nio.file.LinkOption;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.Map;
import java.util.Optional;
import java.util.function.Function;
import org.jspecify.annotations.Nullable;

/**
 * The folder for files that this program can create again, such as unpacked native libraries. Code is loaded from there, so only the
 * user may be able to write in it. It is the folder {@code onnx-prune} in XDG_CACHE_HOME, or in .cache of HOME or of the home that
 * the system knows; relative paths do not count. These things are checked:
 *
 * <ol>
 *   <li>it is a folder, not a link, of the user, and only the user may write in it; it gets the mode 0700;
 *   <li>each folder above it belongs to the user or to root, and nobody else may rename what is in it.
 * </ol>
 *
 * <p>Otherwise a folder for this run only is created among the temporary ones. Each library that unpacks itself (JavaCPP, JNA, the
 * tokenizers) gets a folder inside, and trusts what it finds there.
 */
public final class CacheFolder {
    private static final String NAME = "onnx-prune";
    private static final int GROUP_WRITES = 0020;
    private static final int OTHERS_WRITE = 0002;
    private static final int STICKY = 01000;
    private static final int NOT_THE_USER = 0077;

    private static @Nullable CacheFolder current;

    private final Path path;
    private final Optional<String> warning;

    private CacheFolder(Path path, Optional<String> warning) {
        this.path = path;
        this.warning = warning;
    }

    /** A reason why a folder is not used. */
    private static final class UnusableException extends IOException {
        private static final long serialVersionUID = 1;

        UnusableException(String reason) {
            super(reason);
        }
    }

    /**
     * The folder, which exists and is private.
     *
     * @throws UserException if there is none, and no temporary one can be made
     */
    public static Path path() {
        return current().path;
    }

    /**
     * A folder in it, which exists. Libraries would choose one in a place that others can guess if theirs did not exist.
     *
     * @throws UserException if it cannot be created
     */
    public static Path folder(String name) {
        Path folder = path().resolve(name);
        try {
            return Files.createDirectories(folder);
        } catch (IOException e) {
            throw new UserException("cannot create " + folder + ": " + FileFailure.reason(e), e);
        }
    }

    /** What the user should know about the choice; empty in the usual case. */
    public static Optional<String> warning() {
        return current().warning;
    }

    private static synchronized CacheFolder current() {
        CacheFolder chosen = current;
        if (chosen == null) {
            chosen = choose(System::getenv, System::getProperty);
            current = chosen;
        }
        return chosen;
    }

    /** Chooses the folder in an environment and with properties of the virtual machine. Package-private for its test. */
    static CacheFolder choose(
            Function<String, @Nullable String> environment, Function<String, @Nullable String> properties) {
        Optional<Path> xdg = absolute(environment.apply("XDG_CACHE_HOME"));
        Optional<Path> base = xdg.or(() -> absolute(environment.apply("HOME"))
                .or(() -> absolute(properties.apply("user.home")))
                .map(home -> home.resolve(".cache")));
        if (base.isEmpty()) {
            return temporary("there is no home folder for a cache");
        }
        try {
            return new CacheFolder(usable(base.get()), Optional.empty());
        } catch (IOException e) {
            String reason = e instanceof UnusableException ? e.getMessage() : FileFailure.reason(e);
            return temporary("the cache folder " + base.get().resolve(NAME) + " cannot be used (" + reason + ')');
        }
    }

    Path chosen() {
        return path;
    }

    Optional<String> told() {
        return warning;
    }

    private static CacheFolder temporary(String why) {
        return new CacheFolder(
                TemporaryFolder.create("onnx-prune-cache"),
                Optional.of(why
                        + ", so libraries are unpacked to a temporary folder for this run only; set XDG_CACHE_HOME to a"
                        + " folder of your own"));
    }

    /** A path of the environment if it is absolute. Java knows the home of a user without an entry as "?". */
    private static Optional<Path> absolute(@Nullable String text) {
        try {
            return Optional.ofNullable(text)
                    .filter(given -> !given.isBlank())
                    .map(Path::of)
                    .filter(Path::isAbsolute);
        } catch (InvalidPathException e) {
            return Optional.empty();
        }
    }

    /** The private folder in {@code base}. */
    private static Path usable(Path base) throws IOException {
        boolean posix = base.getFileSystem().supportedFileAttributeViews().contains("unix");
        if (!posix) {
            return Files.createDirectories(base.resolve(NAME));
        }
        var mode = PosixFilePermissions.asFileAttribute(PosixFilePermissions.fromString("rwx------"));
        Files.createDirectories(base, mode);
        // From here on no link that is changed meanwhile matters.
        Path folder = base.toRealPath().resolve(NAME);
        if (!Files.exists(folder, LinkOption.NOFOLLOW_LINKS)) {
            Files.createDirectories(folder, mode);
        }
        if (!Files.isDirectory(folder, LinkOption.NOFOLLOW_LINKS)) {
            throw new UnusableException("it is not a folder");
        }
        Path probe = Files.createTempFile(folder, "owner", ".probe");
        int user = (int) attributes(probe).get("uid");
        Files.delete(probe);
        requireOwn(folder, user);
        for (Path above = folder.getParent(); above != null; above = above.getParent()) {
            requireTrusted(above, user);
        }
        return folder;
    }

    private static Map<String, Object> attributes(Path path) throws IOException {
        return Files.readAttributes(path, "unix:uid,gid,mode", LinkOption.NOFOLLOW_LINKS);
    }

    private static void requireOwn(Path folder, int user) throws IOException {
        Map<String, Object> found = attributes(folder);
        if ((int) found.get("uid") != user) {
            throw new UnusableException("it belongs to another user");
        }
        if (othersWrite(found, user)) {
            throw new UnusableException("others can write to it");
        }
        if (((int) found.get("mode") & NOT_THE_USER) != 0) {
            Files.setPosixFilePermissions(folder, PosixFilePermissions.fromString("rwx------"));
        }
    }

    private static void requireTrusted(Path folder, int user) throws IOException {
        Map<String, Object> found = attributes(folder);
        int owner = (int) found.get("uid");
        if (owner != user && owner != 0) {
            throw new UnusableException(folder + " belongs to another user");
        }
        if (othersWrite(found, user) && ((int) found.get("mode") & STICKY) == 0) {
            throw new UnusableException("others can write to " + folder);
        }
    }

    /** A group that has the number of the user, as many systems make one for each, has no other members. */
    private static boolean othersWrite(Map<String, Object> found, int user) {
        int mode = (int) found.get("mode");
        int group = (int) found.get("gid");
        return (mode & OTHERS_WRITE) != 0 || (mode & GROUP_WRITES) != 0 && group != user && group != 0;
    }
}
