// SPDX-License-Identifier: Apache-2.0
/**
 * Data and evaluation. {@link io.onnxprune.eval.CalibrationData#resolve} takes windows of files or of text that the
 * model generates. {@link io.onnxprune.eval.CausalLm} runs exported decoders. {@link io.onnxprune.eval.Evaluator}
 * measures perplexity and speed.
 */
package io.onnxprune.eval;
