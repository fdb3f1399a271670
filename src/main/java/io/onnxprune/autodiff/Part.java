// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

/**
 * A contribution that is zero outside a range of one axis. Adjacent parts are joined by a Concat. Padding each to full
 * size and adding them would touch every element once for each part.
 *
 * @param name a tensor with the extents of the value, except {@code end - start} on {@code axis}
 * @param start first index of the range
 * @param end end of the range, exclusive
 * @param extent extent of the value on {@code axis}
 */
record Part(String name, int axis, long start, long end, long extent) implements Contribution {}
