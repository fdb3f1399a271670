// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Structure;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/**
 * The kept units of each dimension. Dimensions without an entry are not pruned. A plan can be written, read, edited and
 * applied later.
 *
 * @param model hash of the model that the plan was made for; empty if unknown
 * @param keep kept indices by dimension name, ascending
 * @param layers kept layers, ascending; null for all
 * @param blocks kept residual blocks (attention or feed-forward), ascending; null for all
 */
@SuppressWarnings("ArrayRecordComponent") // plain data, never compared
public record Plan(String model, Map<String, int[]> keep, int[] layers, int[] blocks) {
    public Plan {
        keep = new LinkedHashMap<>(keep);
    }

    /** A plan that prunes nothing. */
    public static Plan keepAll(String model) {
        return new Plan(model, Map.of(), null, null);
    }

    /** The kept indices by variable, for the structure that the plan was made for. */
    public Dim.Keep keep(Structure structure) {
        Map<Dim.Atom, int[]> byAtom = new HashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            int[] kept = keep.get(dimension.name());
            if (kept != null && kept.length < dimension.size()) {
                byAtom.put(dimension.atom(), kept);
            }
        }
        return byAtom::get;
    }

    /** The kept units of a dimension, ascending. */
    public int[] kept(Dimension dimension) {
        int[] units = keep.get(dimension.name());
        return units == null ? IntStream.range(0, dimension.size()).toArray() : units;
    }

    /** The content as text, for checkpoint keys. */
    public String describe() {
        StringBuilder text = new StringBuilder();
        keep.forEach((name, kept) -> text.append(name).append(Arrays.toString(kept)));
        return text.append(Arrays.toString(layers))
                .append(Arrays.toString(blocks))
                .toString();
    }

    /** Whether the plan prunes nothing of the model, so that the result is the model itself. */
    public boolean removesNothing(Structure structure) {
        Dim.Keep kept = keep(structure);
        List<Block> all = structure.stream().blocks();
        return structure.dimensions().stream().allMatch(dimension -> kept.kept(dimension.atom()) == null)
                && IntStream.range(0, all.size())
                        .noneMatch(index -> removesBlock(index, all.get(index).layer()));
    }

    /** Whether residual block {@code index}, in layer {@code layer}, is pruned. */
    public boolean removesBlock(int index, int layer) {
        return layers != null && !contains(layers, layer) || blocks != null && !contains(blocks, index);
    }

    private static boolean contains(int[] sorted, int value) {
        return Arrays.binarySearch(sorted, value) >= 0;
    }
}
