// SPDX-License-Identifier: Apache-2.0
/**
 * What it costs to remove inputs of linear layers in the quadratic model of the loss, in which order they go, and what the
 * remaining weights become (Optimal Brain Surgeon). Pure mathematics on matrices: no model is known here.
 */
package io.onnxprune.obs;
