// SPDX-License-Identifier: Apache-2.0
/**
 * Data and what a model makes of it: windows of files or of text that the model writes itself
 * ({@link io.onnxprune.eval.CalibrationData#resolve}), a driver for exported decoders, perplexity and speed
 * ({@link io.onnxprune.eval.Evaluator}).
 */
package io.onnxprune.eval;
