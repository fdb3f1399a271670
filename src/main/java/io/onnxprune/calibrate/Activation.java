// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

/**
 * A value of the lowered model whose last axis has a fixed size. Statistics of it are summed over all other axes.
 *
 * @param value its name
 * @param width size of the last axis
 */
public record Activation(String value, int width) {}
