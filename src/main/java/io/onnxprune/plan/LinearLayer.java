// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.ir.Program.Value;

/**
 * A product X·W.
 *
 * @param weight the constant that W is, or is the transposition of
 * @param axis the axis of the constant that is summed over, 0 or 1: the rows of W
 * @param dim what lies along that axis
 * @param outputDim what lies along the other
 * @param node how messages name the application
 */
public record LinearLayer(Value weight, int axis, Dim dim, Dim outputDim, String node) {
    /** How many channels are summed over. */
    public int inputs() {
        return Math.toIntExact(weight.constant().dim(axis));
    }

    /** How many channels each sum has. */
    public int outputs() {
        return Math.toIntExact(weight.constant().dim(1 - axis));
    }

    /** The unit of {@code dimension} that each input channel belongs to; -1 for one that belongs to none. */
    public int[] units(Dimension dimension) {
        return UnitIndex.ofIndices(dim, dimension.atom(), inputs());
    }

    /** The unit of {@code dimension} that each output channel belongs to; -1 for one that belongs to none. */
    public int[] outputUnits(Dimension dimension) {
        return UnitIndex.ofIndices(outputDim, dimension.atom(), outputs());
    }

    /** Whether the product sums over {@code dimension}. */
    public boolean reads(Dimension dimension) {
        return dim.atoms().contains(dimension.atom());
    }

    /** Whether the product makes what lies along {@code dimension}. */
    public boolean makes(Dimension dimension) {
        return outputDim.atoms().contains(dimension.atom());
    }
}
