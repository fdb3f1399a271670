// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import java.util.Set;
import java.util.TreeSet;

/**
 * A gradient with the rank of its value, which may not yet be broadcast to its shape. The gradient of a mean, for
 * example, is equal for all elements. Expanding it would cost a pass over memory that the next product makes anyway.
 *
 * @param stretched axes on which the tensor has extent 1 and represents equal elements along the value's extent
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

    /** A gradient in tensor {@code other}, with the same stretched axes. */
    Gradient renamed(String other) {
        return new Gradient(other, stretched);
    }

    /** A gradient in tensor {@code other}, stretched on the axes that are both in {@code axes} and stretched here. */
    Gradient renamed(String other, Set<Integer> axes) {
        Set<Integer> both = new TreeSet<>(stretched);
        both.retainAll(axes);
        return new Gradient(other, both);
    }
}
