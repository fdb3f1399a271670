// SPDX-License-Identifier: Apache-2.0
/** Options that records declare: how a recipe, the command line and documentation know them. */
@NullMarked
package io.onnxprune.option;

import org.jspecify.annotations.NullMarked;
