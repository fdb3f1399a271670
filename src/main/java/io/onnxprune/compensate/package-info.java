// SPDX-License-Identifier: Apache-2.0
/** New weights for the products that sum over what is pruned, and the choice of what to prune that goes with them. */
package io.onnxprune.compensate;
