// SPDX-License-Identifier: Apache-2.0
/** What a pass is, the state that passes hand on, and the manager that runs them in the order of a recipe. */
@NullMarked
package io.onnxprune.pass;

import org.jspecify.annotations.NullMarked;
