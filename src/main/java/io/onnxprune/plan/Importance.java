// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Structure;

/** How much each coupled group is worth. Larger is worth more; only comparisons within one result mean anything. */
public interface Importance {
    /**
     * Scores every unit of every prunable dimension, every layer and every residual block.
     *
     * @throws io.onnxprune.diag.UserException if the weights hold NaN or infinite values
     */
    Scores score(Structure structure, Log log);
}
