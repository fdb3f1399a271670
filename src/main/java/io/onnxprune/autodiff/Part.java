// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

/**
 * A contribution that is zero outside a range of one axis. Parts that lie side by side are joined by a Concat; padding
 * each to full size and adding them would touch every element once a part.
 *
 * @param name a tensor with the extents of the value, except {@code end - start} on {@code axis}
 * @param start first index of the range
 * @param end last index of the range, exclusive
 * @param extent the extent of the value on {@code axis}
 */
record Part(String name, int axis, long start, long end, long extent) implements Contribution {}
