// SPDX-License-Identifier: Apache-2.0
/**
 * Inference on ONNX Runtime: the only package that touches {@code ai.onnxruntime}. Tensors go in and come out as
 * {@link io.onnxprune.runtime.HostTensor}, models as files or as bytes with their weights beside them, and every
 * failure of the runtime becomes a {@link io.onnxprune.diag.UserException} that keeps the runtime's own reason.
 */
package io.onnxprune.runtime;
