// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import io.onnxprune.diag.Nearest;
import io.onnxprune.diag.UsageException;
import io.onnxprune.plan.LayerCount;
import java.util.Arrays;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * One option of a pass.
 *
 * @param key as recipes write it: {@code round-to}
 * @param kind what its values are
 * @param allowed the only values, or for a list the only elements; empty if the kind alone decides
 * @param minimum smallest number
 * @param fallback the value when a recipe does not say, as text; null if there is none
 * @param summary one sentence for help and documentation
 */
public record PassOption(String key, Kind kind, List<String> allowed, double minimum, String fallback, String summary) {
    static final String UNSTRUCTURED = "unstructured";
    static final String STRUCTURED = "structured";
    /** n:m. */
    static final Pattern GROUPED = Pattern.compile("(\\d{1,5}):(\\d{1,5})");

    /** What the values of an option are. */
    public enum Kind {
        WORD("word"),
        WORDS("list of words"),
        INTEGER("whole number"),
        NUMBER("number"),
        LAYERS("number or percentage of layers"),
        PATTERN("unstructured, structured or n:m"),
        FLAG("true or false");

        private final String title;

        Kind(String title) {
            this.title = title;
        }

        /** For people. */
        public String title() {
            return title;
        }
    }

    static PassOption choice(String key, String fallback, String summary, String... allowed) {
        return new PassOption(key, Kind.WORD, List.of(allowed), 0, fallback, summary);
    }

    static PassOption words(String key, String fallback, String summary, List<String> allowed) {
        return new PassOption(key, Kind.WORDS, allowed, 0, fallback, summary);
    }

    static PassOption integer(String key, int minimum, String fallback, String summary) {
        return new PassOption(key, Kind.INTEGER, List.of(), minimum, fallback, summary);
    }

    static PassOption layers(String key, String fallback, String summary) {
        return new PassOption(key, Kind.LAYERS, List.of(), 0, fallback, summary);
    }

    static PassOption pattern(String key, String fallback, String summary) {
        return new PassOption(key, Kind.PATTERN, List.of(), 0, fallback, summary);
    }

    static PassOption number(String key, double minimum, String fallback, String summary) {
        return new PassOption(key, Kind.NUMBER, List.of(), minimum, fallback, summary);
    }

    static PassOption flag(String key, boolean fallback, String summary) {
        return new PassOption(key, Kind.FLAG, List.of(), 0, Boolean.toString(fallback), summary);
    }

    /** Whether it has a value when a recipe does not say. */
    boolean hasFallback() {
        return fallback != null && !fallback.isEmpty();
    }

    /** The values it takes, for people. */
    public String values() {
        return allowed.isEmpty() ? kind.title() : (kind == Kind.WORDS ? "list of " : "") + String.join(", ", allowed);
    }

    /** Elements of a list written as {@code a, b}. */
    static List<String> elements(String text) {
        return Arrays.stream(text.split(","))
                .map(String::strip)
                .filter(element -> !element.isEmpty())
                .toList();
    }

    /**
     * Checks a value written as text; a list as {@code a, b}.
     *
     * @throws UsageException without a place, if the value is none of this option's
     */
    void check(String text) {
        switch (kind) {
            case WORD, WORDS -> {
                List<String> words = kind == Kind.WORD ? List.of(text) : elements(text);
                for (String word : words) {
                    if (!allowed.isEmpty() && !allowed.contains(word)) {
                        throw problem(word, "one of " + String.join(", ", allowed), Nearest.suggestion(word, allowed));
                    }
                }
            }
            case INTEGER -> {
                long value = parse(text, true).longValue();
                if (value < minimum || value > Integer.MAX_VALUE) {
                    throw problem(text, String.format("a whole number of at least %.0f", minimum), "");
                }
            }
            case NUMBER -> {
                double value = parse(text, false).doubleValue();
                if (!(value >= minimum) || Double.isInfinite(value)) {
                    throw problem(text, "a number of at least " + minimum, "");
                }
            }
            case LAYERS -> {
                try {
                    LayerCount.parse(text);
                } catch (UsageException e) {
                    throw problem(text, "a whole number of at least 0 or a percentage of layers", "");
                }
            }
            case PATTERN -> {
                Matcher grouped = GROUPED.matcher(text);
                boolean some = grouped.matches()
                        && Long.parseLong(grouped.group(1)) >= 1
                        && Long.parseLong(grouped.group(1)) < Long.parseLong(grouped.group(2));
                if (!some && !text.equals(UNSTRUCTURED) && !text.equals(STRUCTURED)) {
                    throw problem(
                            text,
                            "unstructured, structured, or n:m for n zeros in every m weights, such as 2:4",
                            Nearest.suggestion(text, List.of(UNSTRUCTURED, STRUCTURED)));
                }
            }
            case FLAG -> {
                if (!text.equals("true") && !text.equals("false")) {
                    throw problem(text, "true or false", Nearest.suggestion(text, List.of("true", "false")));
                }
            }
        }
    }

    private Number parse(String text, boolean whole) {
        try {
            if (whole) {
                return Long.parseLong(text);
            }
            return Double.parseDouble(text);
        } catch (NumberFormatException e) {
            throw problem(text, "a " + kind.title(), "");
        }
    }

    private UsageException problem(String found, String expected, String suggestion) {
        return new UsageException(key + " must be " + expected + ", not \"" + found + '"' + suggestion);
    }
}
