// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.dims.Role;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.rewrite.Slicer.Slice;
import java.util.Collection;
import java.util.Collections;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Maps the linear layers of a lowered model to those of the pruned and the dense model. */
final class PrunedLinears {
    /** The roles of dimensions inside residual blocks. */
    static final Set<Role> INNER = Collections.unmodifiableSet(
            EnumSet.of(Role.HEADS, Role.KV_HEADS, Role.QUERY_HEADS, Role.V_HEAD_DIM, Role.FFN));

    private final PrunedState state;
    private final LinearLayers layers;
    private final Map<String, PrunedLinear> known = new HashMap<>();

    PrunedLinears(PrunedState state, LinearLayers layers) {
        this.state = state;
        this.layers = layers;
    }

    /** The forms of a layer; null if its weight may not be changed. */
    PrunedLinear of(LoweredLinear lowered) {
        Slice slice = state.slices().get(lowered.weight());
        LinearLayer dense = layers.ofWeight(slice == null ? lowered.weight() : slice.source());
        return dense == null
                ? null
                : known.computeIfAbsent(lowered.weight(), name -> PrunedLinear.of(lowered, dense, state));
    }

    /**
     * The forms of those of {@code lowered} whose weights may be changed, in the same order. Each dense layer occurs
     * once.
     */
    List<PrunedLinear> of(Collection<LoweredLinear> lowered) {
        Map<LinearLayer, PrunedLinear> found = new LinkedHashMap<>();
        for (LoweredLinear linear : lowered) {
            PrunedLinear layer = of(linear);
            if (layer != null) {
                found.putIfAbsent(layer.dense(), layer);
            }
        }
        return List.copyOf(found.values());
    }
}
