// SPDX-License-Identifier: Apache-2.0
/** Dense linear algebra in float64 outside the heap. Only this package uses the native library. */
package io.onnxprune.algebra;
