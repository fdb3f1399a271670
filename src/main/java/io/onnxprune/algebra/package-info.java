// SPDX-License-Identifier: Apache-2.0
/**
 * Dense linear algebra in float64 outside the heap: on the host with OpenBLAS, which only this package uses, or on a GPU
 * with cuBLAS.
 */
package io.onnxprune.algebra;
