// SPDX-License-Identifier: Apache-2.0
/**
 * Dimension inference: which axes of which tensors must change together, found from operator rules alone.
 *
 * <p>{@link io.onnxprune.dims.Trace} learns concrete sizes by running the graph, {@link io.onnxprune.dims.Dim} and
 * {@link io.onnxprune.dims.Unifier} are the algebra, the {@code ...Rules} classes say what each operator does to it
 * ({@link io.onnxprune.dims.OperatorRules} is the table to extend), {@link io.onnxprune.dims.DimensionAnalysis} runs
 * them over a model, and {@link io.onnxprune.dims.Structure} names what was found: heads, FFN channels, layers.
 */
package io.onnxprune.dims;
