/** Composition root: chains the stages from a model file to a smaller one, and reports what they did. */
package io.onnxprune.compiler;
