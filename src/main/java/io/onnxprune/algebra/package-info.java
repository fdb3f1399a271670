// SPDX-License-Identifier: Apache-2.0
/** Dense linear algebra in float64 outside the heap; the only place that knows the native library behind it. */
package io.onnxprune.algebra;
