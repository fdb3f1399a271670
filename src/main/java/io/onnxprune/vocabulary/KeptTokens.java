// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import java.util.Arrays;
import java.util.BitSet;

/** The tokens that stay. They get the ids 0, 1, 2, ... in the order of their old ids. */
public final class KeptTokens {
    private final int[] ids;
    private final int[] renumbered;

    private KeptTokens(int[] ids, int[] renumbered) {
        this.ids = ids;
        this.renumbered = renumbered;
    }

    /**
     * Keeps some of the tokens.
     *
     * @param before number of token ids in the model
     * @param stay the ids that stay, each below {@code before}
     */
    public static KeptTokens of(int before, BitSet stay) {
        int[] ids = stay.stream().toArray();
        int[] renumbered = new int[before];
        Arrays.fill(renumbered, -1);
        for (int i = 0; i < ids.length; i++) {
            renumbered[ids[i]] = i;
        }
        return new KeptTokens(ids, renumbered);
    }

    /** Number of token ids before. */
    public int before() {
        return renumbered.length;
    }

    /** Number of token ids that stay. */
    public int after() {
        return ids.length;
    }

    /** The old ids of the tokens that stay, ascending. */
    public int[] ids() {
        return ids.clone();
    }

    /** The old id of a new one. */
    public long oldId(long id) {
        return ids[Math.toIntExact(id)];
    }

    /** The new id of an old one; -1 for a token that goes, and for an id that the model does not have. */
    public int newId(long id) {
        return id < 0 || id >= renumbered.length ? -1 : renumbered[(int) id];
    }

    /** The old ids below a size that stay, ascending: those of a table that may have fewer rows than others. */
    int[] below(int size) {
        int end = Arrays.binarySearch(ids, size);
        return Arrays.copyOf(ids, end < 0 ? -end - 1 : end);
    }
}
