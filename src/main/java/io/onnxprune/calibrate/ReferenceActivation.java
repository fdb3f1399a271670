// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.ir.DType;
import io.onnxprune.runtime.RuntimeTensor;
import java.util.function.IntFunction;

/**
 * The value of the reference model that corresponds to the output of a segment.
 *
 * @param dtype its element type
 * @param kept which of its channels the output of the segment has, in that order; null for all
 * @param values the value for each batch
 */
@SuppressWarnings("ArrayRecordComponent") // never compared
record ReferenceActivation(DType dtype, int[] kept, IntFunction<RuntimeTensor> values) {}
