// SPDX-License-Identifier: Apache-2.0
/** The passes that recipes can name. */
@NullMarked
package io.onnxprune.passes;

import org.jspecify.annotations.NullMarked;
