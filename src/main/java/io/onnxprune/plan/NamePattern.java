// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import java.util.regex.Pattern;
import java.util.stream.Collectors;

/** Name patterns with wildcards: {@code *} matches any characters, {@code ?} matches one. */
public final class NamePattern {
    private NamePattern() {}

    /** Whether a pattern matches an entire name. */
    public static boolean matches(String pattern, String name) {
        return Pattern.compile(pattern.chars()
                        .mapToObj(c -> c == '*' ? ".*" : c == '?' ? "." : Pattern.quote(Character.toString(c)))
                        .collect(Collectors.joining()))
                .matcher(name)
                .matches();
    }
}
