// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.dims.Role;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.rewrite.Slicer.Slice;
import java.util.Collections;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;

/** The products of a smaller model by the names of their weights there. */
final class PrunedLinears {
    /** What is summed over inside residual blocks. */
    static final Set<Role> INNER = Collections.unmodifiableSet(
            EnumSet.of(Role.HEADS, Role.KV_HEADS, Role.QUERY_HEADS, Role.V_HEAD_DIM, Role.FFN));

    private final PrunedState state;
    private final LinearLayers consumers;
    private final Map<String, PrunedLinear> known = new HashMap<>();

    PrunedLinears(PrunedState state, LinearLayers consumers) {
        this.state = state;
        this.consumers = consumers;
    }

    /** The product in terms of the original; null if its weight may not be changed. */
    PrunedLinear of(LoweredLinear linear) {
        Slice slice = state.slices().get(linear.weight());
        LinearLayer consumer = consumers.reading(slice == null ? linear.weight() : slice.source());
        return consumer == null ? null : known.computeIfAbsent(linear.weight(), name -> PrunedLinear.of(consumer, name, state));
    }
}
