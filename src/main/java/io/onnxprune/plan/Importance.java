// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Structure;

/**
 * Importance of coupled groups of weights. A larger score means a more important group. Scores are only comparable
 * within one result.
 */
public interface Importance {
    /**
     * Scores every unit of every prunable dimension, every layer and every residual block.
     *
     * @throws io.onnxprune.diag.UserException if the weights hold NaN or infinite values
     */
    Scores score(Structure structure, Log log);
}
