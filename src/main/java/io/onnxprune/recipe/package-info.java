/** Recipes: pipelines of passes declared in YAML, checked against the declaration of every pass. */
package io.onnxprune.recipe;
