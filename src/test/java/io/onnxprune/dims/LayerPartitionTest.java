// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** A layer is what repeats. */
class LayerPartitionTest {
    @ParameterizedTest
    @CsvSource({
        // One layer, and two.
        "AF, 00",
        "AFAF, 0011",
        // Attention and feed-forward part in one block.
        "PPP, 012",
        // A feed-forward block on each side of the mixers.
        "FAMFFAMF, 00001111",
        // Attention and convolution take turns.
        "MFAFMF, 001122",
        "AFMFMFMFAFMFMFMF, 0011223344556677",
        // Blocks without a feed-forward part are layers of their own.
        "MMAM, 0123",
        // Per-layer embeddings, and a decoder that attends to an encoder.
        "AFSAFS, 000111",
        "AFS, 000",
        "ACFACF, 000111",
        "ACF, 000",
        // An unknown block takes the place that it has in the other layers.
        "AUAU, 0011",
        "AUAF, 0011",
        "UFAFUF, 001122",
        // Single blocks are gone.
        "AFFAF, 00122",
        "AAFAF, 01122",
        "'', ''"
    })
    void blocksAreGroupedByTheShortestRepetition(String blocks, String layers) {
        List<BlockKind> kinds =
                blocks.chars().mapToObj(LayerPartitionTest::kind).toList();

        String found = IntStream.of(LayerPartition.of(kinds))
                .mapToObj(Integer::toString)
                .collect(Collectors.joining());
        assertThat(found).isEqualTo(layers);
    }

    private static BlockKind kind(int letter) {
        return switch (letter) {
            case 'A' -> BlockKind.ATTENTION;
            case 'C' -> BlockKind.CROSS_ATTENTION;
            case 'M' -> BlockKind.MIXER;
            case 'P' -> BlockKind.PARALLEL;
            case 'F' -> BlockKind.FEED_FORWARD;
            case 'S' -> BlockKind.SIDE_INPUT;
            default -> BlockKind.UNKNOWN;
        };
    }
}
