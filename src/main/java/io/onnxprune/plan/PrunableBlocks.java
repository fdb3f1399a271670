// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.ResidualStream;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Branch;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/**
 * The units of depth pruning: layers or single residual blocks, as sets of indices into {@link
 * ResidualStream#blocks()}. A model with branches (one decoder with a cache, one without) has every block twice. Both
 * copies are pruned together.
 */
public final class PrunableBlocks {
    private PrunableBlocks() {}

    /** The blocks of each layer. */
    public static List<int[]> layers(Structure structure) {
        List<Block> blocks = structure.stream().blocks();
        return IntStream.range(0, structure.stream().layers())
                .mapToObj(layer -> IntStream.range(0, blocks.size())
                        .filter(index -> blocks.get(index).layer() == layer)
                        .toArray())
                .toList();
    }

    /** Each block with its copies in other branches, in order of the first copies. */
    public static List<int[]> blocks(Structure structure) {
        List<Block> blocks = structure.stream().blocks();
        Map<List<Branch>, List<Integer>> byBranch = new LinkedHashMap<>();
        for (int index = 0; index < blocks.size(); index++) {
            byBranch.computeIfAbsent(blocks.get(index).add().branch(), key -> new ArrayList<>())
                    .add(index);
        }
        List<List<Integer>> branches = List.copyOf(byBranch.values());
        boolean copies = branches.stream()
                .allMatch(branch -> branch.size() == branches.get(0).size());
        if (!copies) {
            return IntStream.range(0, blocks.size())
                    .mapToObj(index -> new int[] {index})
                    .toList();
        }
        int count = branches.isEmpty() ? 0 : branches.get(0).size();
        return IntStream.range(0, count)
                .mapToObj(position -> branches.stream()
                        .mapToInt(branch -> branch.get(position))
                        .toArray())
                .toList();
    }
}
