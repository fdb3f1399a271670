// SPDX-License-Identifier: Apache-2.0
/**
 * The intermediate representation: an ONNX model as immutable graphs of nodes over named SSA values, with weights that
 * stay in their file until they are read. Lossless: what the tool does not understand is carried through as opaque
 * bytes. Knows neither the file format nor ONNX Runtime.
 */
package io.onnxprune.ir;
