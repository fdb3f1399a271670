package io.onnxprune.compensate;

import io.onnxprune.calibrate.Linear;
import io.onnxprune.plan.Consumers;
import io.onnxprune.plan.Consumers.Consumer;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.rewrite.Slicer.Slice;
import java.util.HashMap;
import java.util.Map;

/** The products of a smaller model by the names of their weights there. */
final class Sites {
    private final PrunedState state;
    private final Consumers consumers;
    private final Map<String, Site> known = new HashMap<>();

    Sites(PrunedState state, Consumers consumers) {
        this.state = state;
        this.consumers = consumers;
    }

    /** The product in terms of the original; null if its weight may not be changed. */
    Site of(Linear linear) {
        Slice slice = state.slices().get(linear.weight());
        Consumer consumer = consumers.reading(slice == null ? linear.weight() : slice.source());
        return consumer == null ? null : known.computeIfAbsent(linear.weight(), name -> Site.of(consumer, name, state));
    }
}
