// SPDX-License-Identifier: Apache-2.0
/**
 * Optimal Brain Surgeon and related methods on single linear layers: the cost of removing input units under a
 * quadratic loss model, the order of removal, and the updated remaining weights. Pure mathematics on matrices, without
 * knowledge of models.
 */
package io.onnxprune.obs;
