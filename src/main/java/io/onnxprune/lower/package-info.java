// SPDX-License-Identifier: Apache-2.0
/**
 * The lowered form of a model, in which calibration and differentiation run it: one flat graph of standard operators of a
 * recent operator set, for whole rows of tokens without a past.
 */
package io.onnxprune.lower;
