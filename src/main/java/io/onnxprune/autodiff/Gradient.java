// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import java.util.Set;
import java.util.TreeSet;

/**
 * A gradient of the rank of its value that may still have to be broadcast: the gradient of a mean is the same for all
 * elements, and writing it out once for each would cost a pass over memory that the next product makes anyway.
 *
 * @param stretched axes on which the tensor has extent 1 and stands for equal elements along the value's extent
 */
record Gradient(String name, Set<Integer> stretched) implements Contribution {
    Gradient {
        stretched = Set.copyOf(stretched);
    }

    /** A gradient of the value's own shape. */
    static Gradient full(String name) {
        return new Gradient(name, Set.of());
    }

    boolean isFull() {
        return stretched.isEmpty();
    }

    /** The same axes stretched in another tensor. */
    Gradient renamed(String other) {
        return new Gradient(other, stretched);
    }

    /** {@code other} stretched on those of these axes that are among {@code axes}. */
    Gradient renamed(String other, Set<Integer> axes) {
        Set<Integer> both = new TreeSet<>(stretched);
        both.retainAll(axes);
        return new Gradient(other, both);
    }
}
