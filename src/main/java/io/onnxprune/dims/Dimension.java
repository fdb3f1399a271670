// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.dims.DimensionAnalysis.Member;
import java.util.List;

/**
 * A dimension of weights. One index of it is a coupled group: pruning it removes one slice of every member.
 *
 * @param name unique and stable name of role and layer, such as {@code ffn.3}
 * @param layer index of its layer; -1 when it is not in exactly one
 * @param size number of units
 * @param members every axis of a constant that has this dimension
 * @param least the smallest number of units that a pruned model can have
 * @param pin reason why it cannot be pruned; null when it can
 */
public record Dimension(
        String name, Role role, int layer, Dim.Atom atom, int size, List<Member> members, Least least, String pin) {
    /**
     * The smallest number of units that must be kept.
     *
     * @param because the reason why more than one is needed; empty for one
     */
    public record Least(int units, String because) {
        /** One unit. */
        static final Least ONE = new Least(1, "");
    }

    public boolean isPrunable() {
        return pin == null;
    }
}
