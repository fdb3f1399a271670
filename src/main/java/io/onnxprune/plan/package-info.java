// SPDX-License-Identifier: Apache-2.0
/** What to remove: importance of every coupled group, a budget over dimensions, and the plan that results. */
package io.onnxprune.plan;
