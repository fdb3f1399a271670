// SPDX-License-Identifier: Apache-2.0
/**
 * Compensation: new weights for the linear layers that pruning affects, and the selection of units and zeros that
 * depends on them.
 */
package io.onnxprune.compensate;
