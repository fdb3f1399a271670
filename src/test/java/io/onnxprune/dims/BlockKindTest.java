// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import java.util.List;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** Kinds and layers of blocks, and the roles that follow from them. */
@Tag("ort")
class BlockKindTest {
    @ParameterizedTest
    @CsvSource({
        "llama-gqa-d, ATTENTION.0 FEED_FORWARD.0 ATTENTION.1 FEED_FORWARD.1 ATTENTION.2 FEED_FORWARD.2",
        "llama-g16-e-fp32, ATTENTION.0 FEED_FORWARD.0 ATTENTION.1 FEED_FORWARD.1",
        "gpt-neox-d, PARALLEL.0 PARALLEL.1",
        "mixtral-a, ATTENTION.0 FEED_FORWARD.0 ATTENTION.1 FEED_FORWARD.1",
        "mla, ATTENTION.0 FEED_FORWARD.0 ATTENTION.1 FEED_FORWARD.1",
        "hybrid-conv, MIXER.0 FEED_FORWARD.0 ATTENTION.1 FEED_FORWARD.1 MIXER.2 FEED_FORWARD.2 ATTENTION.3"
                + " FEED_FORWARD.3",
        "shared-kv, ATTENTION.0 FEED_FORWARD.0 SIDE_INPUT.0 ATTENTION.1 FEED_FORWARD.1 SIDE_INPUT.1 ATTENTION.2"
                + " FEED_FORWARD.2 SIDE_INPUT.2",
        "cross-attention, ATTENTION.0 CROSS_ATTENTION.0 FEED_FORWARD.0 ATTENTION.1 CROSS_ATTENTION.1 FEED_FORWARD.1"
    })
    void kindsFollowFromWhatABlockComputes(String name, String expected) {
        String found = TestModels.structure(name).stream().blocks().stream()
                .map(block -> block.kind() + "." + block.layer())
                .collect(Collectors.joining(" "));

        assertThat(found).isEqualTo(expected);
    }

    /** The width of per-layer embeddings belongs to their table, not to a feed-forward block. */
    @Test
    void onlyInnerWidthsOfFeedForwardBlocksAreFfnChannels() {
        assertThat(sizes("shared-kv", Role.FFN)).containsExactly(48, 48, 48);
        assertThat(sizes("hybrid-conv", Role.FFN)).containsExactly(48, 48, 48, 48);
        assertThat(sizes("hybrid-conv", Role.MIXER)).containsExactly(24, 24);
        assertThat(sizes("mla", Role.LATENT)).containsExactly(20, 12, 20, 12);
    }

    /** Queries, keys, values and the output of cross-attention lose a head together; the encoder keeps its width. */
    @Test
    void headsOfCrossAttentionAreCoupled() {
        Structure structure = TestModels.structure("cross-attention");
        Dimension heads = structure.dimensions().stream()
                .filter(dimension -> dimension.name().equals("heads.1-2"))
                .findFirst()
                .orElseThrow();

        assertThat(heads.isPrunable()).isTrue();
        assertThat(heads.members().stream()
                        .map(DimensionAnalysis.Member::tensor)
                        .distinct())
                .hasSize(4);
        assertThat(sizes("cross-attention", Role.HEADS)).containsOnly(4).hasSize(5);
        assertThat(sizes("cross-attention", Role.FFN)).containsExactly(40, 48, 48);
        assertThat(sizes("cross-attention", Role.HIDDEN)).containsExactly(32);
    }

    /** A learned score of each head is a weight of that head. */
    @Test
    void sinksGoWithTheirHeads() {
        Structure structure = TestModels.structure("attention-sinks");

        assertThat(structure.dimensions().stream().filter(dimension -> dimension.role() == Role.KV_HEADS))
                .hasSize(4)
                .allMatch(dimension -> dimension.members().stream()
                        .anyMatch(member -> member.tensor().rank() == 1));
    }

    private static List<Integer> sizes(String name, Role role) {
        return TestModels.structure(name).dimensions().stream()
                .filter(dimension -> dimension.role() == role)
                .map(Dimension::size)
                .toList();
    }
}
