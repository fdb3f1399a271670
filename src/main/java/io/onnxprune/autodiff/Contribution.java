// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

/** The contribution of one use of a value to its gradient. */
sealed interface Contribution permits Gradient, Part {}
