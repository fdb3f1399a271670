// SPDX-License-Identifier: Apache-2.0
/** Recovery: training of low-rank adapters, or of weights themselves, through ONNX Runtime's training API. */
package io.onnxprune.recover;
