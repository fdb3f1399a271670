// SPDX-License-Identifier: Apache-2.0
/**
 * Verification: compares the pruned model with the masked full-size model. This shows that slicing removed only zeros.
 */
package io.onnxprune.verify;
