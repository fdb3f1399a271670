// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class NearestTest {
    @ParameterizedTest
    @CsvSource({"kitten,sitting,3", "'',abc,3", "abc,'',3", "same,same,0", "ab,ba,2", "ffn.0,ffn.10,1"})
    void distanceCountsEdits(String a, String b, int edits) {
        assertThat(Nearest.distance(a, b)).isEqualTo(edits);
    }

    @Test
    void theNearestNameIsSuggested() {
        assertThat(Nearest.to("hedas", List.of("ffn", "heads", "hidden"))).isEqualTo("heads");
        assertThat(Nearest.suggestion("hedas", List.of("ffn", "heads"))).isEqualTo("; did you mean \"heads\"?");
        assertThat(Nearest.to("a", List.of("b", "c"))).isEqualTo("b");
        assertThat(Nearest.suggestion("a", List.of())).isEmpty();
    }
}
