/**
 * What a model is worth: token data, a driver for exported decoders, perplexity and speed. One call,
 * {@link io.onnxprune.eval.Evaluator#evaluate}, does it all for a model file.
 */
package io.onnxprune.eval;
