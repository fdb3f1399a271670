// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import java.util.Objects;
import java.util.regex.Pattern;
import org.jspecify.annotations.NullMarked;

/**
 * A failure that the user can correct. The message is one sentence: the problem, its place (file, node, option) and
 * the remedy. The command line prints it without a stack trace and exits with 1.
 */
@NullMarked
public class UserException extends RuntimeException {
    private static final long serialVersionUID = 1L;
    private static final Pattern LINE_BREAKS = Pattern.compile("[\t\n\r]+");
    private static final Pattern CONTROL = Pattern.compile("\\p{Cntrl}");

    public UserException(String message) {
        super(printable(message));
    }

    public UserException(String message, Throwable cause) {
        super(printable(message), cause);
    }

    /** Names from a file may hold line breaks and escapes of terminals, which have no place in a sentence. */
    private static String printable(String message) {
        String line = LINE_BREAKS.matcher(message).replaceAll(" ");
        return CONTROL.matcher(line)
                .replaceAll(
                        found -> String.format("\\\\u%04x", (int) found.group().charAt(0)));
    }

    @Override
    public String getMessage() {
        return Objects.requireNonNullElse(super.getMessage(), "");
    }
}
