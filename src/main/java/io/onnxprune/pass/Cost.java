// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

/**
 * An estimate of the work of a pass, to an order of magnitude.
 *
 * @param flops floating-point operations
 * @param memory bytes of the largest matrices that are held at a time, beside those that calibration may take
 * @param disk bytes of statistics and new weights in the work folder
 */
public record Cost(double flops, long memory, long disk) {
    /** Nothing worth counting. */
    public static final Cost NONE = new Cost(0, 0, 0);

    /** A cost of operations alone. */
    public static Cost ofFlops(double flops) {
        return new Cost(flops, 0, 0);
    }

    /** The cost of this and then another. */
    public Cost then(Cost other) {
        return new Cost(flops + other.flops, Math.max(memory, other.memory), disk + other.disk);
    }

    /** This cost so many times, with one amount of memory and disk. */
    public Cost times(int count) {
        return new Cost(count * flops, memory, disk);
    }
}
