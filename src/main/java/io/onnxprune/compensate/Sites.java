// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.calibrate.Linear;
import io.onnxprune.dims.Role;
import io.onnxprune.plan.Consumers;
import io.onnxprune.plan.Consumers.Consumer;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.rewrite.Slicer.Slice;
import java.util.Collections;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;

/** The products of a smaller model by the names of their weights there. */
final class Sites {
    /** What is summed over inside residual blocks. */
    static final Set<Role> INNER = Collections.unmodifiableSet(
            EnumSet.of(Role.HEADS, Role.KV_HEADS, Role.QUERY_HEADS, Role.V_HEAD_DIM, Role.FFN));

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
