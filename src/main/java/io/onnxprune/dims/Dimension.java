// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.dims.DimensionAnalysis.Member;
import java.util.List;

/**
 * A dimension that weights carry. One index of it is a coupled group: removing it removes a slice of every member.
 *
 * @param name unique and stable: role and layer, {@code ffn.3}
 * @param layer the layer that it belongs to, or -1 if it runs through several
 * @param size number of units
 * @param members every axis of a constant that carries it
 * @param pin why it cannot be pruned, or null
 */
public record Dimension(String name, Role role, int layer, Dim.Atom atom, int size, List<Member> members, String pin) {
    public boolean isPrunable() {
        return pin == null;
    }
}
