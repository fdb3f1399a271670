// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.DimensionAnalysis.Member;
import io.onnxprune.dims.ResidualStream;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.plan.BlockRemoval;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.PrunableBlocks;
import io.onnxprune.vocabulary.VocabularyTables;
import java.util.List;

/** The JSON report of inspect. docs/json.md describes the fields. */
record InspectReport(long parameters, long bytes, int layers, List<Entry> dimensions, List<Block> blocks) {
    /** A dimension. */
    record Entry(
            String name,
            String role,
            int layer,
            int size,
            boolean prunable,
            String pinnedBecause,
            long unitParameters,
            List<Slice> members) {
        private static Entry of(Dimension dimension, Structure structure, ParameterCount count) {
            String pin = VocabularyTables.pin(structure, dimension);
            return new Entry(
                    dimension.name(),
                    dimension.role().key(),
                    dimension.layer(),
                    dimension.size(),
                    pin == null,
                    pin,
                    count.unit(dimension).parameters(),
                    dimension.members().stream()
                            .map(member -> Slice.of(member, structure))
                            .toList());
        }
    }

    /** A weight along a dimension. */
    record Slice(String tensor, int axis, String dimension, String node) {
        private static Slice of(Member member, Structure structure) {
            Use use = member.use();
            return new Slice(
                    use.op().input(use.input()).name(),
                    member.axis(),
                    structure.describe(member.dim()),
                    use.op().node().name());
        }
    }

    /** A residual block. */
    record Block(String name, String kind, boolean attention, int layer, long parameters, String pinnedBecause) {
        private static Block of(int[] copies, Structure structure, ParameterCount count, BlockRemoval removal) {
            ResidualStream.Block block = structure.stream().blocks().get(copies[0]);
            return new Block(
                    "blocks." + copies[0],
                    block.kind().key(),
                    block.kind().attends(),
                    block.layer(),
                    count.blocks(copies).parameters(),
                    removal.obstacle(copies[0]));
        }
    }

    static InspectReport of(Structure structure, ParameterCount count) {
        BlockRemoval removal = BlockRemoval.of(structure);
        return new InspectReport(
                count.dense().parameters(),
                count.dense().bytes(),
                structure.stream().layers(),
                structure.dimensions().stream()
                        .map(dimension -> Entry.of(dimension, structure, count))
                        .toList(),
                PrunableBlocks.blocks(structure).stream()
                        .map(copies -> Block.of(copies, structure, count, removal))
                        .toList());
    }
}
