// SPDX-License-Identifier: Apache-2.0
/** Reading and writing ONNX files: the only place that knows protobuf, external data and the 2 GiB limits. */
package io.onnxprune.onnx;
