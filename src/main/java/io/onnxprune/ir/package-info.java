// SPDX-License-Identifier: Apache-2.0
/**
 * The intermediate representation: an ONNX model as immutable graphs of nodes over named SSA values. Weights stay in
 * their file until they are read. Fields that are not interpreted are kept as opaque bytes, so nothing is lost. This
 * package depends neither on the file format nor on ONNX Runtime.
 */
package io.onnxprune.ir;
