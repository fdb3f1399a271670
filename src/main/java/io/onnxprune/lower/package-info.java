// SPDX-License-Identifier: Apache-2.0
/**
 * Lowering: turns a model into the form that calibration and differentiation run, a flat graph of standard operators
 * of a recent operator set, for complete rows of tokens without a past.
 */
package io.onnxprune.lower;
