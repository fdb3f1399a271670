// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Comparator;
import java.util.Deque;
import java.util.HashMap;
import java.util.Map;
import java.util.Optional;
import java.util.PriorityQueue;

/** Chooses the tokens that stay. A token goes only when no token that stays is joined from it. */
public final class TokenChoice {
    private static final int[] NONE = {};

    private final int size;
    private final Optional<TokenizerFile> tokenizer;
    private final BitSet required;
    private final Map<Integer, int[]> parts = new HashMap<>();

    /**
     * Prepares a choice.
     *
     * @param size number of token ids in the model
     * @param tokenizer of the model; without it no token depends on another one
     * @param named ids that other files name, which must stay
     */
    public TokenChoice(int size, Optional<TokenizerFile> tokenizer, BitSet named) {
        this.size = size;
        this.tokenizer = tokenizer;
        BitSet stay = (BitSet) named.clone();
        tokenizer.ifPresent(file -> stay.or(file.required()));
        this.required = closed(stay);
    }

    /** The ids that must stay, whatever else does. */
    public BitSet required() {
        return (BitSet) required.clone();
    }

    /** Keeps the given ids and those that must stay. */
    public KeptTokens keeping(BitSet ids) {
        BitSet stay = closed(ids);
        stay.or(required);
        return KeptTokens.of(size, stay);
    }

    /**
     * Lets the rarest tokens go, and of equally rare ones those with the highest ids.
     *
     * @param counts how often each token occurs; of ids without an entry 0
     * @param most how many may go
     * @param limit tokens that occur more often stay
     */
    public KeptTokens rarest(long[] counts, int most, long limit) {
        int[] dependents = new int[size];
        for (int id = 0; id < size; id++) {
            for (int part : parts(id)) {
                dependents[part]++;
            }
        }
        PriorityQueue<Integer> free = new PriorityQueue<>(
                Comparator.<Integer>comparingLong(id -> count(counts, id)).thenComparing(Comparator.reverseOrder()));
        for (int id = 0; id < size; id++) {
            if (dependents[id] == 0 && !required.get(id)) {
                free.add(id);
            }
        }
        BitSet stay = new BitSet();
        stay.set(0, size);
        // A prediction takes two tokens to choose from.
        int end = Math.min(most, size - 2);
        for (int gone = 0; gone < end && !free.isEmpty() && count(counts, free.peek()) <= limit; gone++) {
            int id = free.remove();
            stay.clear(id);
            for (int part : parts(id)) {
                dependents[part]--;
                if (dependents[part] == 0 && !required.get(part)) {
                    free.add(part);
                }
            }
        }
        return KeptTokens.of(size, stay);
    }

    private static long count(long[] counts, int id) {
        return id < counts.length ? counts[id] : 0;
    }

    /** The distinct parts of a token that the model has rows for. */
    private int[] parts(int id) {
        return parts.computeIfAbsent(
                id,
                key -> tokenizer
                        .map(file -> Arrays.stream(file.parts(key))
                                .filter(part -> part < size && part != key)
                                .distinct()
                                .toArray())
                        .orElse(NONE));
    }

    /** The ids below the size of the model, with all tokens that they are joined from. */
    private BitSet closed(BitSet ids) {
        BitSet closed = new BitSet();
        Deque<Integer> waiting = new ArrayDeque<>();
        ids.stream().filter(id -> id < size).forEach(waiting::add);
        while (!waiting.isEmpty()) {
            int id = waiting.pop();
            if (!closed.get(id)) {
                closed.set(id);
                for (int part : parts(id)) {
                    waiting.add(part);
                }
            }
        }
        return closed;
    }
}
