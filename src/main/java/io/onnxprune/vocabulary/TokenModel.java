// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import java.util.BitSet;
import java.util.Map;
import java.util.Set;

/** The model of a tokenizer: how it makes tokens of text. */
interface TokenModel {
    /** The ids of its tokens. */
    Map<String, Integer> ids();

    /** The ids without which some text would no longer be written, or written as unknown. */
    BitSet required();

    /** The ids of the tokens that this token is joined from; none where it does not depend on other tokens. */
    int[] parts(int id);

    /** Reduces the part of the file that describes this model, in place. */
    void reduce(KeptTokens kept);

    /** The merges whose tokens stay, each as its two tokens with a space between; none in a model without merges. */
    default Set<String> keptMerges(KeptTokens kept) {
        return Set.of();
    }

    /** The ids of the tokens for single bytes, {@code <0x00>} to {@code <0xFF>}; fewer than 256 where some are missing. */
    static BitSet bytes(Map<String, Integer> ids) {
        BitSet bytes = new BitSet();
        for (int value = 0; value < 256; value++) {
            Integer id = ids.get("<0x%02X>".formatted(value));
            if (id != null) {
                bytes.set(id);
            }
        }
        return bytes;
    }
}
