// SPDX-License-Identifier: Apache-2.0
/** Measurements of the dense model and of pruned models on calibration rows. */
@NullMarked
package io.onnxprune.measure;

import org.jspecify.annotations.NullMarked;
