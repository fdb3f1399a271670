// SPDX-License-Identifier: Apache-2.0
/** Reading and writing of ONNX files. Only this package deals with protobuf, external data and the 2 GiB limit. */
package io.onnxprune.onnx;
