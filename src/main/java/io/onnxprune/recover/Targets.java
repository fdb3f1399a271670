// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.diag.UsageException;
import io.onnxprune.plan.NamePattern;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;

/**
 * The selection of linear layers to train.
 *
 * @param attention whether those of attention are trained
 * @param ffn whether those of FFNs and experts are trained
 * @param patterns names of others, by weight, node or transformer layer ({@code layers.3}), with {@code *} and
 *     {@code ?}
 */
public record Targets(boolean attention, boolean ffn, List<String> patterns) {
    /** All linear layers of residual blocks. */
    public static final Targets ALL = new Targets(true, true, List.of());

    public Targets {
        patterns = List.copyOf(patterns);
    }

    /**
     * The targets for a list of words: {@code attention}, {@code ffn}, {@code all} for both, and patterns.
     *
     * @throws UsageException when the list is empty
     */
    public static Targets of(List<String> words) {
        if (words.isEmpty()) {
            throw new UsageException("--targets takes attention, ffn, all or patterns of names, and none was given");
        }
        List<String> patterns = new ArrayList<>(words);
        patterns.removeAll(List.of("attention", "ffn", "all"));
        boolean all = words.contains("all");
        return new Targets(all || words.contains("attention"), all || words.contains("ffn"), patterns);
    }

    /** Whether a pattern matches one of the names of a linear layer. */
    boolean selects(Collection<String> names) {
        return patterns.stream().anyMatch(pattern -> matches(pattern, names));
    }

    static boolean matches(String pattern, Collection<String> names) {
        return names.stream().anyMatch(name -> NamePattern.matches(pattern, name));
    }
}
