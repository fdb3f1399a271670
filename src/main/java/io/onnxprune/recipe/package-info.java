// SPDX-License-Identifier: Apache-2.0
/** Recipes: lists of passes in YAML, checked against the options that every pass declares. */
@NullMarked
package io.onnxprune.recipe;

import org.jspecify.annotations.NullMarked;
