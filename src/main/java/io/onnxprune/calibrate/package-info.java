// SPDX-License-Identifier: Apache-2.0
/**
 * Calibration: runs rows of tokens through a model on ONNX Runtime, segment by segment, and yields statistics of its
 * weights and activations. {@link io.onnxprune.calibrate.Calibrator} is the entry point.
 */
package io.onnxprune.calibrate;
