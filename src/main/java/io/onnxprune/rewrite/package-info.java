// SPDX-License-Identifier: Apache-2.0
/**
 * Applies a plan: slices weights and patches every integer and attribute that encodes a size, removes residual blocks,
 * and builds the full-size model with zeros that the result must equal.
 */
package io.onnxprune.rewrite;
