// SPDX-License-Identifier: Apache-2.0
/**
 * Inference and training on ONNX Runtime. Only this package uses {@code ai.onnxruntime}. Inputs and outputs are
 * {@link io.onnxprune.runtime.HostTensor}s. Models are files, or bytes with separate weights. Every failure of the
 * runtime becomes a {@link io.onnxprune.diag.UserException} that includes the runtime's own reason.
 */
package io.onnxprune.runtime;
