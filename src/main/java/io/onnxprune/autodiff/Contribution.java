// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

/** What one use of a value adds to the gradient of the value. */
sealed interface Contribution permits Gradient, Part {}
