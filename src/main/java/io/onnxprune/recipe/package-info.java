// SPDX-License-Identifier: Apache-2.0
/** Recipes: lists of passes in YAML, checked against the options that every pass declares. */
package io.onnxprune.recipe;
