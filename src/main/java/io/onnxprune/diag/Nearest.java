// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import java.util.Collection;
import java.util.Comparator;

/** Suggestions for misspelt names: the valid name with the smallest edit distance. */
public final class Nearest {
    private Nearest() {}

    /**
     * The element of {@code valid} with the smallest edit distance to {@code name}, the first of several; null when
     * {@code valid} is empty.
     */
    public static String to(String name, Collection<String> valid) {
        return valid.stream()
                .min(Comparator.comparingInt(candidate -> distance(name, candidate)))
                .orElse(null);
    }

    /**
     * A clause for the end of an error message, as {@code ; did you mean "ffn"?}; empty when {@code valid} is empty.
     */
    public static String suggestion(String name, Collection<String> valid) {
        String nearest = to(name, valid);
        return nearest == null ? "" : "; did you mean \"" + nearest + "\"?";
    }

    /**
     * The Levenshtein distance: the least number of insertions, deletions and substitutions that turn {@code a} into
     * {@code b}.
     */
    static int distance(String a, String b) {
        int[] row = new int[b.length() + 1];
        for (int j = 0; j < row.length; j++) {
            row[j] = j;
        }
        for (int i = 1; i <= a.length(); i++) {
            int diagonal = row[0];
            row[0] = i;
            for (int j = 1; j < row.length; j++) {
                int substitution = diagonal + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
                diagonal = row[j];
                row[j] = Math.min(substitution, 1 + Math.min(row[j], row[j - 1]));
            }
        }
        return row[b.length()];
    }
}
