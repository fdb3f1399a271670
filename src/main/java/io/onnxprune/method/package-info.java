// SPDX-License-Identifier: Apache-2.0
/** The parts of methods that recipes name: importance metrics, weight updates and ways to make weights zero. */
@NullMarked
package io.onnxprune.method;

import org.jspecify.annotations.NullMarked;
