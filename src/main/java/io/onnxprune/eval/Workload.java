// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.UsageException;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * The work whose time counts, for one sequence.
 *
 * @param kind what is timed
 * @param tokens tokens of the prompt, or those that came before the step
 */
public record Workload(Kind kind, int tokens) {
    private static final Pattern FORM = Pattern.compile("(prefill|decode):([1-9][0-9]{0,8})");

    /** What is timed. */
    public enum Kind {
        /** All tokens of a prompt in one run. */
        PREFILL,
        /** One token after others, whose keys and values are cached. */
        DECODE
    }

    /** A prompt as long as that of an evaluation. */
    public static Workload usual() {
        return new Workload(Kind.PREFILL, EvalOptions.DEFAULT_PROMPT);
    }

    /**
     * Reads {@code prefill:128} or {@code decode:1024}.
     *
     * @param option that the text was given for, for the message
     * @throws UsageException if the text is no workload
     */
    public static Workload parse(String text, String option) {
        Matcher matcher = FORM.matcher(text.strip().toLowerCase(Locale.ROOT));
        if (!matcher.matches()) {
            throw new UsageException(
                    option + " takes prefill:N for a prompt of N tokens, or decode:N for one token after N, not \""
                            + text + '"');
        }
        return new Workload(
                Kind.valueOf(matcher.group(1).toUpperCase(Locale.ROOT)), Integer.parseInt(matcher.group(2)));
    }

    /** The tokens that are processed at once. */
    public int rows() {
        return kind == Kind.PREFILL ? tokens : 1;
    }

    /** The positions that the last of these tokens attends to. */
    public int positions() {
        return kind == Kind.PREFILL ? tokens : tokens + 1;
    }

    @Override
    public String toString() {
        return kind.name().toLowerCase(Locale.ROOT) + ':' + tokens;
    }
}
