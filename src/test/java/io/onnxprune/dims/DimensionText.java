// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.List;

/**
 * The result of dimension inference, one line for each dimension: name, role, layer, size, number of members, and the
 * pin or {@code -}.
 */
final class DimensionText {
    private DimensionText() {}

    static String of(Structure structure) {
        StringBuilder text = new StringBuilder("layers " + structure.stream().layers() + ", blocks "
                + structure.stream().blocks().size() + "\n");
        lines(structure.dimensions()).forEach(line -> text.append(line).append('\n'));
        return text.toString();
    }

    static List<String> lines(List<Dimension> dimensions) {
        return dimensions.stream().map(DimensionText::line).toList();
    }

    private static String line(Dimension dimension) {
        return String.format(
                "%-16s %-12s layer %2s  size %4d  members %3d  %s",
                dimension.name(),
                dimension.role().key(),
                dimension.layer() < 0 ? "-" : dimension.layer(),
                dimension.size(),
                dimension.members().size(),
                dimension.isPrunable() ? "-" : dimension.pin());
    }
}
