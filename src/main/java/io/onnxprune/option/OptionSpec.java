// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.option;

import io.onnxprune.diag.Nearest;
import io.onnxprune.diag.UsageException;
import java.util.Arrays;
import java.util.List;

/**
 * One option, as it is written in text.
 *
 * @param key as recipes write it: {@code round-to}
 * @param form the values that it takes
 * @param fallback its default as text; empty if there is none
 * @param summary one sentence for help and documentation
 * @param owner the part that declares it, for documentation: empty for the pass itself, {@code taylor} for a metric
 */
public record OptionSpec(String key, Form form, String fallback, String summary, String owner) {
    /** Which values an option takes. */
    public sealed interface Form permits Words, Numbers, Flag, Parsed {
        /** A phrase for documentation. */
        String title();
    }

    /**
     * A word, or a list of words.
     *
     * @param allowed the only ones; empty for any
     */
    public record Words(List<String> allowed, boolean list) implements Form {
        @Override
        public String title() {
            String one = allowed.isEmpty() ? "word" : String.join(", ", allowed);
            return list ? "list of " + (allowed.isEmpty() ? "words" : one) : one;
        }
    }

    /**
     * A number.
     *
     * @param whole whether it has no fraction
     * @param min the smallest
     * @param below all are less than this
     */
    public record Numbers(boolean whole, double min, double below) implements Form {
        @Override
        public String title() {
            return whole ? "whole number" : "number";
        }
    }

    /** True or false. */
    public record Flag() implements Form {
        @Override
        public String title() {
            return "true or false";
        }
    }

    /**
     * A value of a type with a parser of its own.
     *
     * @param title a phrase that follows "must be"
     * @param check throws a {@link UsageException} for what is no value
     */
    public record Parsed(String title, java.util.function.Consumer<String> check) implements Form {}

    /** The elements of a list written as {@code a, b}. */
    static List<String> elements(String text) {
        return Arrays.stream(text.split(","))
                .map(String::strip)
                .filter(element -> !element.isEmpty())
                .toList();
    }

    /** Whether a recipe may write several values as a list. */
    public boolean isList() {
        return form instanceof Words words && words.list;
    }

    /**
     * Checks a value written as text; a list as {@code a, b}.
     *
     * @throws UsageException without a place, if the option does not take the value
     */
    public void check(String text) {
        if (form instanceof Words words) {
            checkWords(words, text);
        } else if (form instanceof Numbers numbers) {
            checkNumber(numbers, text);
        } else if (form instanceof Parsed parsed) {
            try {
                parsed.check.accept(text);
            } catch (UsageException e) {
                throw problem(text, parsed.title, "");
            }
        } else if (!text.equals("true") && !text.equals("false")) {
            throw problem(text, "true or false", Nearest.suggestion(text, List.of("true", "false")));
        }
    }

    private void checkWords(Words words, String text) {
        for (String word : words.list ? elements(text) : List.of(text)) {
            if (!words.allowed.isEmpty() && !words.allowed.contains(word)) {
                throw problem(
                        word, "one of " + String.join(", ", words.allowed), Nearest.suggestion(word, words.allowed));
            }
        }
    }

    private void checkNumber(Numbers numbers, String text) {
        double value;
        try {
            value = numbers.whole ? Long.parseLong(text) : Double.parseDouble(text);
        } catch (NumberFormatException e) {
            throw problem(text, "a " + numbers.title(), "");
        }
        if (numbers.whole && (value < numbers.min || value > Integer.MAX_VALUE)) {
            throw problem(text, String.format("a whole number of at least %.0f", numbers.min), "");
        }
        if (!(value >= numbers.min) || Double.isInfinite(value)) {
            throw problem(text, "a number of at least " + numbers.min, "");
        }
        if (!(value < numbers.below)) {
            throw problem(text, String.format("a number less than %.0f", numbers.below), "");
        }
    }

    private UsageException problem(String found, String expected, String suggestion) {
        return new UsageException(key + " must be " + expected + ", not \"" + found + '"' + suggestion);
    }
}
