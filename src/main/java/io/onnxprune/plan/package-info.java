// SPDX-License-Identifier: Apache-2.0
/** The choice of the pruned units: importance of coupled groups, a budget over dimensions, and the resulting plan. */
package io.onnxprune.plan;
