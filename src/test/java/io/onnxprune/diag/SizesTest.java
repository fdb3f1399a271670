// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import org.junit.jupiter.api.Test;

class SizesTest {
    private final Sizes sizes = new Sizes("tensor \"w\" of a.bin", "write it again");

    @Test
    void productsOfExtents() {
        assertThat(sizes.elements()).isOne();
        assertThat(sizes.elements(2, 3)).isEqualTo(6);
        assertThat(sizes.elements(1_000_000_000_000L, 0)).isZero();
        assertThat(sizes.bytes(4, 3)).isEqualTo(2);
        assertThat(sizes.bytes(32, 3, 5)).isEqualTo(60);
        assertThat(sizes.bytes(0, 7)).isZero();
    }

    @Test
    void negativeAndOverflowingShapesAreRefused() {
        for (long[] shape : new long[][] {
            {-1}, {0, -1}, {Long.MIN_VALUE}, {Long.MAX_VALUE, 2}, {1L << 32, 1L << 32}, {0, 1L << 40, 1L << 40}
        }) {
            assertThatThrownBy(() -> sizes.elements(shape))
                    .isInstanceOf(UserException.class)
                    .hasMessageStartingWith("tensor \"w\" of a.bin has ")
                    .hasMessageEndingWith("; write it again");
        }
        assertThatThrownBy(() -> sizes.bytes(32, Long.MAX_VALUE / 16))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("impossible shape");
    }

    @Test
    void rangesLieInTheFile() {
        sizes.range(0, 10, 10);
        sizes.range(10, 0, 10);
        for (long[] range : new long[][] {{0, 11}, {-1, 2}, {2, -1}, {Long.MAX_VALUE, 2}, {2, Long.MAX_VALUE}}) {
            assertThatThrownBy(() -> sizes.range(range[0], range[1], 10))
                    .isInstanceOf(UserException.class)
                    .hasMessageContaining("but the file has 10");
        }
    }

    @Test
    void numbersLieBetweenBounds() {
        assertThat(sizes.between("a version", 2, 1, 3)).isEqualTo(2);
        assertThatThrownBy(() -> sizes.between("a version", 4, 1, 3))
                .isInstanceOf(UserException.class)
                .hasMessage("tensor \"w\" of a.bin has a version 4, which is not between 1 and 3; write it again");
    }
}
