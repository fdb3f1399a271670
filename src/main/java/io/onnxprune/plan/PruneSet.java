// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Nearest;
import io.onnxprune.diag.UsageException;
import io.onnxprune.dims.Role;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.EnumSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;

/**
 * The structures that may be pruned.
 *
 * @param roles roles of dimensions whose units may be pruned
 * @param layers whether entire layers may be pruned
 * @param blocks whether single attention and feed-forward blocks may be pruned
 */
public record PruneSet(Set<Role> roles, boolean layers, boolean blocks) {
    private static final String LAYERS = "layers";
    private static final String BLOCKS = "blocks";

    public PruneSet {
        roles = Collections.unmodifiableSet(roles.isEmpty() ? EnumSet.noneOf(Role.class) : EnumSet.copyOf(roles));
    }

    /** Heads (KV groups where the model has them) and FFN channels. */
    public static PruneSet standard() {
        return parse(List.of("heads", "ffn"));
    }

    /**
     * Parses the names of structures: {@code heads}, {@code ffn}, {@code layers}, ...
     *
     * @throws UsageException for an unknown name, or for none
     */
    public static PruneSet parse(Collection<String> words) {
        Set<Role> roles = EnumSet.noneOf(Role.class);
        boolean layers = false;
        boolean blocks = false;
        for (String word : words) {
            String key = word.strip().toLowerCase(Locale.ROOT).replace('-', '_');
            if (!words().contains(key)) {
                throw new UsageException("there is no structure \"" + word + "\" to prune, only "
                        + String.join(", ", words()) + Nearest.suggestion(key, words()));
            }
            layers |= key.equals(LAYERS);
            blocks |= key.equals(BLOCKS);
            for (Role role : Role.values()) {
                if (word(role).equals(key)) {
                    roles.add(role);
                }
            }
        }
        if (words.isEmpty()) {
            throw new UsageException(
                    "no structure to prune was named; name one or more of " + String.join(", ", words()));
        }
        return new PruneSet(roles, layers, blocks);
    }

    /** Whether nothing may be pruned. */
    public boolean isEmpty() {
        return roles.isEmpty() && !layers && !blocks;
    }

    /** This set without a role. */
    public PruneSet without(Role role) {
        Set<Role> others = new LinkedHashSet<>(roles);
        others.remove(role);
        return new PruneSet(others, layers, blocks);
    }

    /** The names that {@link #parse} accepts. */
    public static List<String> words() {
        List<String> words = new ArrayList<>();
        for (Role role : Role.values()) {
            boolean unit = role != Role.OTHER;
            if (unit && !words.contains(word(role))) {
                words.add(word(role));
            }
        }
        words.add(LAYERS);
        words.add(BLOCKS);
        return words;
    }

    /** The name of a role. KV groups are the heads of a model that has them. */
    static String word(Role role) {
        return role == Role.KV_HEADS ? Role.HEADS.key() : role.key();
    }

    /** The names that {@link #parse} turns into this set. */
    @Override
    public String toString() {
        List<String> words = new ArrayList<>();
        roles.stream().map(PruneSet::word).distinct().forEach(words::add);
        if (layers) {
            words.add(LAYERS);
        }
        if (blocks) {
            words.add(BLOCKS);
        }
        return String.join(", ", words);
    }
}
