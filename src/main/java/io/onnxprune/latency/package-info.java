// SPDX-License-Identifier: Apache-2.0
/**
 * What a pruned model takes: times of single products on this machine, and the time of a model that follows from them.
 */
@NullMarked
package io.onnxprune.latency;

import org.jspecify.annotations.NullMarked;
