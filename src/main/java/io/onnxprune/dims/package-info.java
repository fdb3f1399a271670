// SPDX-License-Identifier: Apache-2.0
/**
 * Dimension inference: finds which axes of which tensors must be pruned together, from operator rules only.
 *
 * <p>{@link io.onnxprune.dims.Trace} runs the graph for concrete sizes. {@link io.onnxprune.dims.Dim} and
 * {@link io.onnxprune.dims.Unifier} are the algebra. The {@code ...Rules} classes define the effect of each operator;
 * {@link io.onnxprune.dims.OperatorRules} is the table to extend. {@link io.onnxprune.dims.DimensionAnalysis} applies
 * them to a model, and {@link io.onnxprune.dims.Structure} names the result: heads, FFN channels, layers.
 */
package io.onnxprune.dims;
