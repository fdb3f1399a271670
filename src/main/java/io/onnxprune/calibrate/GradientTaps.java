// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.runtime.RuntimeTensor;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/** The taps of the gradients of initializers, and their connection to a {@link GradientSink}. */
final class GradientTaps {
    private GradientTaps() {}

    /** The taps of {@code initializers}, in their order, with squares after each gradient if needed. */
    static List<Tap> of(Collection<String> initializers, boolean squares) {
        List<Tap> taps = new ArrayList<>();
        for (String initializer : initializers) {
            taps.add(new Tap.Gradient(initializer));
            if (squares) {
                taps.add(new Tap.SquaredGradient(initializer));
            }
        }
        return taps;
    }

    /**
     * A sink that pairs each sum of gradients with the sum of their squares, and passes both to {@code sink}.
     *
     * @param reduction reduces the sums if {@code sink} asks for it
     */
    static SumSink sink(GradientSink sink, boolean squares, GradientReduction reduction) {
        Map<String, RuntimeTensor> waiting = new HashMap<>();
        return (tap, sum) -> {
            String name = tap.subject();
            if (tap instanceof Tap.SquaredGradient) {
                RuntimeTensor gradients = waiting.remove(name);
                sink.accept(name, reduction.sums(gradients, sum));
                gradients.release();
                sum.release();
            } else if (squares) {
                waiting.put(name, sum);
            } else {
                sink.accept(name, reduction.sums(sum, null));
                sum.release();
            }
        };
    }
}
