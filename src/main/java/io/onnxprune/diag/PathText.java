// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import java.nio.charset.Charset;
import java.nio.charset.StandardCharsets;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;

/** Paths in text. The locale decides which characters the name of a file can have for Java. */
public final class PathText {
    /** What the virtual machine puts in place of a character that it cannot decode. */
    private static final char UNKNOWN = 0xFFFD;

    private PathText() {}

    /**
     * A path.
     *
     * @throws UsageException if the text cannot be one, with the reason
     */
    public static Path of(String text) {
        try {
            return Path.of(text);
        } catch (InvalidPathException e) {
            throw unreadable(text);
        }
    }

    /**
     * Checks that the program can name the files of a command line.
     *
     * @throws UsageException if a path has characters that this locale does not have
     */
    public static void require(String... arguments) {
        for (String argument : arguments) {
            if (!isNameable(argument)) {
                throw unreadable(argument);
            }
        }
        String here = System.getProperty("user.dir");
        if (!isNameable(here)) {
            throw unreadable(here);
        }
    }

    /** Whether this locale has all characters of a text. */
    public static boolean isNameable(String text) {
        Charset charset = charset();
        return text.indexOf(UNKNOWN) < 0 && charset.newEncoder().canEncode(text);
    }

    /** The character set of names of files; it is decided when the virtual machine starts. */
    private static Charset charset() {
        String name = System.getProperty("sun.jnu.encoding", "");
        return Charset.isSupported(name) ? Charset.forName(name) : StandardCharsets.UTF_8;
    }

    private static UsageException unreadable(String text) {
        return new UsageException(problem(text));
    }

    /** A sentence that says why a text cannot be a path. */
    public static String problem(String text) {
        if (isNameable(text)) {
            return "\"" + text + "\" is no path";
        }
        return charset().equals(StandardCharsets.UTF_8)
                ? "the path \"" + text + "\" is not in UTF-8; rename it"
                : "the path \"%s\" has characters that this locale (%s) does not have; set LC_ALL=C.UTF-8"
                        .formatted(text, charset().name());
    }
}
