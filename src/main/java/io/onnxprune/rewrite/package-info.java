// SPDX-License-Identifier: Apache-2.0
/**
 * Applies a plan: slices weights, patches every integer and attribute that encodes a size, and removes residual
 * blocks. Also builds the masked full-size model that the result must equal.
 */
package io.onnxprune.rewrite;
