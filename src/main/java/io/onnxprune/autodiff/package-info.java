// SPDX-License-Identifier: Apache-2.0
/**
 * Reverse-mode differentiation as a graph rewrite: gradients become nodes of standard ONNX operators, so they run on
 * any ONNX Runtime and any execution provider.
 *
 * <p>{@link io.onnxprune.autodiff.Backward} walks the applications of a program backwards,
 * {@link io.onnxprune.autodiff.Derivatives} is the table of operator rules (the one to extend), each
 * {@code ...Derivatives} class holds those of one family, and {@link io.onnxprune.autodiff.Derivation} is what a rule
 * sees. {@link io.onnxprune.autodiff.CausalLmLoss} is where gradients of a language model begin.
 */
package io.onnxprune.autodiff;
