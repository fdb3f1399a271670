// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.rewrite.StreamBasis.Kind;
import io.onnxprune.rewrite.StreamBasis.Place;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Gives the residual stream another orthogonal basis, which changes no result (SliceGPT, arXiv 2401.15024, section 3, with one
 * basis for the whole stream and without adapters). {@link NormFolding} must come first: after it, all that is left along the
 * hidden axis are linear maps and lengths.
 */
public final class StreamRotation {
    private StreamRotation() {}

    /**
     * Refuses a model whose stream has to stay in its basis.
     *
     * @throws io.onnxprune.diag.UserException with the node and the reason
     */
    public static void check(Structure structure) {
        StreamBasis.of(structure);
    }

    /** The linear layers that take over terms of channels, so that each needs a bias. */
    public static List<LinearLayer> biased(Structure structure) {
        LinearLayers layers = LinearLayers.of(structure);
        StreamBasis basis = StreamBasis.of(structure);
        Set<Op> readers = new HashSet<>();
        basis.places().stream()
                .filter(place -> place.kind() == Kind.READ && place.frame().shift() != null)
                .forEach(place -> readers.add(place.op()));
        return layers.all().stream()
                .filter(layer -> layers.applications(layer).stream().anyMatch(readers::contains))
                .toList();
    }

    /** The names of the weights that read normalised values of the stream. */
    public static Set<String> readers(Structure structure) {
        Set<String> names = new LinkedHashSet<>();
        for (Place place : StreamBasis.of(structure).places()) {
            if (place.kind() == Kind.READ && place.frame().normalised()) {
                names.add(place.constant().name());
            }
        }
        return names;
    }

    /**
     * The model in another basis.
     *
     * @param structure of a model that {@link NormFolding} has changed
     * @param weights rotates tensors
     */
    public static Model rotated(Structure structure, StreamWeights weights) {
        StreamBasis basis = StreamBasis.of(structure);
        Model model = structure.analysis().program().model();
        StreamEditor editor = new StreamEditor(model);
        Map<Value, Set<Integer>> done = new HashMap<>();
        for (Place place : basis.places()) {
            boolean linear = place.kind() == Kind.READ || place.kind() == Kind.WRITE;
            boolean vector = place.constant().constant().rank() == 1;
            boolean first = vector
                    || done.computeIfAbsent(place.constant(), key -> new HashSet<>())
                            .add(place.axis());
            if (linear && first) {
                Tensor present = editor.contents(place);
                editor.set(place, weights.rotated(present, place.axis()));
            }
        }
        return editor.apply();
    }
}
