// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

/**
 * A value of the lowered model whose last axis has a fixed extent; what is measured of it is summed over all others.
 *
 * @param value its name
 * @param width extent of the last axis
 */
public record Activation(String value, int width) {}
