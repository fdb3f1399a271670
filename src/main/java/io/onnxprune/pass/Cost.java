// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

/**
 * An estimate of the work of a pass, to an order of magnitude.
 *
 * @param model floating-point operations of the model's own graph, in float32 or less
 * @param algebra floating-point operations of dense algebra, in float64
 * @param memory bytes of the largest matrices that are held at a time, beside those that calibration may take
 * @param disk bytes of statistics and new weights in the work folder
 */
public record Cost(double model, double algebra, long memory, long disk) {
    /** Nothing worth counting. */
    public static final Cost NONE = new Cost(0, 0, 0, 0);

    /** A cost of operations of the model alone. */
    public static Cost ofModel(double flops) {
        return new Cost(flops, 0, 0, 0);
    }

    /** All floating-point operations. */
    public double flops() {
        return model + algebra;
    }

    /** The cost of this and then another. */
    public Cost then(Cost other) {
        return new Cost(
                model + other.model, algebra + other.algebra, Math.max(memory, other.memory), disk + other.disk);
    }

    /** This cost so many times, with one amount of memory and disk. */
    public Cost times(int count) {
        return new Cost(count * model, count * algebra, memory, disk);
    }
}
