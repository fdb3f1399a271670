// SPDX-License-Identifier: Apache-2.0
/**
 * Calibration: runs rows of tokens through a model on ONNX Runtime, segment by segment, and hands over reduced statistics of
 * its weights. {@link io.onnxprune.calibrate.Calibrator} is the entry.
 */
package io.onnxprune.calibrate;
