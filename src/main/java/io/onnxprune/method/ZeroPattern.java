// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.diag.UsageException;
import io.onnxprune.obs.Pattern;
import java.util.Locale;
import java.util.regex.Matcher;

/**
 * Where zeros may be.
 *
 * @param kind anywhere, whole inputs and outputs of a matrix, or n of every m neighbouring inputs of one output
 * @param zeros n of {@link Kind#GROUPED}; 0 otherwise
 * @param of m of {@link Kind#GROUPED}; 0 otherwise
 */
public record ZeroPattern(Kind kind, int zeros, int of) {
    /** The values of an option of this type. */
    static final String VALUES = "unstructured, structured, or n:m for n zeros in every m weights, such as 2:4";

    private static final java.util.regex.Pattern FORM = java.util.regex.Pattern.compile("(\\d{1,5}):(\\d{1,5})");

    /** The kinds of patterns. */
    public enum Kind {
        UNSTRUCTURED,
        STRUCTURED,
        GROUPED
    }

    /** Zeros anywhere. */
    public static ZeroPattern unstructured() {
        return new ZeroPattern(Kind.UNSTRUCTURED, 0, 0);
    }

    /**
     * Reads {@code unstructured}, {@code structured} or {@code n:m}.
     *
     * @throws UsageException if it is none of them
     */
    public static ZeroPattern parse(String text) {
        Matcher matcher = FORM.matcher(text);
        if (matcher.matches()) {
            int zeros = Integer.parseInt(matcher.group(1));
            int of = Integer.parseInt(matcher.group(2));
            if (zeros >= 1 && zeros < of) {
                return new ZeroPattern(Kind.GROUPED, zeros, of);
            }
        } else if (text.equals("unstructured")) {
            return unstructured();
        } else if (text.equals("structured")) {
            return new ZeroPattern(Kind.STRUCTURED, 0, 0);
        }
        throw new UsageException("\"" + text + "\" is not " + VALUES);
    }

    /** The pattern with a share of zeros; a grouped one has its own. */
    Pattern withShare(double share) {
        return switch (kind) {
            case UNSTRUCTURED -> new Pattern.Unstructured(share);
            case STRUCTURED -> new Pattern.Structured(share);
            case GROUPED -> new Pattern.Grouped(zeros, of);
        };
    }

    boolean isGrouped() {
        return kind == Kind.GROUPED;
    }

    /** The form that {@link #parse} reads. */
    @Override
    public String toString() {
        return isGrouped() ? zeros + ":" + of : kind.name().toLowerCase(Locale.ROOT);
    }
}
