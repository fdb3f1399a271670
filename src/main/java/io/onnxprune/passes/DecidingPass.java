// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.dims.Dimension;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import java.util.List;

/** A pass that makes or reads a plan. */
interface DecidingPass extends Pass {
    /** The dimensions that may lose units. */
    List<Dimension> shrinking(DenseModel dense, PassContext context);
}
