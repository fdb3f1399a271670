// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.dims.DimensionAnalysis.Member;
import io.onnxprune.ir.Program.Value;
import java.util.List;
import java.util.Set;

/**
 * A dimension of weights. One index of it is a coupled group: pruning it removes one slice of every member, and the
 * weights that only this index uses.
 *
 * @param name unique and stable name of role and layer, such as {@code ffn.3}
 * @param layer index of its layer; -1 when it is not in exactly one
 * @param size number of units
 * @param members every axis of a constant that has this dimension
 * @param units what holds for its units
 * @param pin reason why it cannot be pruned; null when it can
 */
public record Dimension(
        String name, Role role, int layer, Dim.Atom atom, int size, List<Member> members, Units units, String pin) {
    /**
     * What holds for the units of a dimension.
     *
     * @param least the smallest number of them that a pruned model can have
     * @param because the reason why it is more than one; empty otherwise
     * @param own for each unit the constants that no other unit uses, as those of an expert with matrices of its own;
     *     empty if the members are all there is
     */
    public record Units(int least, String because, List<Set<Value>> own) {}

    public boolean isPrunable() {
        return pin == null;
    }
}
