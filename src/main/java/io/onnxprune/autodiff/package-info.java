// SPDX-License-Identifier: Apache-2.0
/**
 * Reverse-mode differentiation as a graph rewrite: gradients become nodes of standard ONNX operators, so they run on
 * any ONNX Runtime and any execution provider.
 *
 * <p>{@link io.onnxprune.autodiff.Backward} visits the operators of a program in reverse order.
 * {@link io.onnxprune.autodiff.Derivatives} is the table of operator rules to extend; each {@code ...Derivatives}
 * class has the rules of one family. {@link io.onnxprune.autodiff.Derivation} is the interface of a rule. Gradients of
 * a language model start at {@link io.onnxprune.autodiff.CausalLmLoss}.
 */
package io.onnxprune.autodiff;
