// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.ir.Program.Value;

/**
 * A linear layer X·W, where W is a constant matrix.
 *
 * @param weight the constant that holds W or its transpose
 * @param axis the axis of the constant that is summed over, 0 or 1; it holds the rows of W
 * @param dim the dimensions along that axis
 * @param outputDim the dimensions along the other axis
 * @param node how messages name the operator application
 */
public record LinearLayer(Value weight, int axis, Dim dim, Dim outputDim, String node) {
    /** The number of input channels. */
    public int inputs() {
        return Math.toIntExact(weight.constant().dim(axis));
    }

    /** The number of output channels. */
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

    /** Whether the layer consumes {@code dimension}: it sums over it. */
    public boolean consumes(Dimension dimension) {
        return dim.atoms().contains(dimension.atom());
    }

    /** Whether the layer produces {@code dimension}: its output channels lie along it. */
    public boolean produces(Dimension dimension) {
        return outputDim.atoms().contains(dimension.atom());
    }
}
