// SPDX-License-Identifier: Apache-2.0
/** Recovery training: trains low-rank adapters, or weights themselves, through ONNX Runtime's training API. */
package io.onnxprune.recover;
