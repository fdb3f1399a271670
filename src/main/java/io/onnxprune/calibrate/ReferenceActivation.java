// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.ir.DType;
import io.onnxprune.runtime.HostTensor;
import java.util.function.IntFunction;

/**
 * The value of another model that stands at the place of a segment's output.
 *
 * @param dtype its element type
 * @param kept which of its channels the segment's output has, in that order; null for all
 * @param values the value of each batch
 */
@SuppressWarnings("ArrayRecordComponent") // never compared
record ReferenceActivation(DType dtype, int[] kept, IntFunction<HostTensor> values) {}
