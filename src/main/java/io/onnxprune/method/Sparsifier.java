// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.compensate.Sparsification.Zeros;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.option.Part;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import java.util.Map;

/** Makes weights zero in place. */
public interface Sparsifier extends Part {
    /**
     * New weights with zeros.
     *
     * @param updates full-size weights of the dense model
     */
    record Result(Map<Value, Tensor> updates, Zeros zeros) {}

    /** What this sparsifier measures, if that is nothing but second moments. */
    default Pass.Moments moments() {
        return Pass.Moments.NONE;
    }

    /** Whether it is to make no weight zero. */
    default boolean isNothing() {
        return false;
    }

    /** The work of one run. */
    default Cost cost(CostModel model) {
        return model.forward().then(model.inputMoments()).then(model.solving());
    }

    /**
     * Makes weights of the linear layers in residual blocks zero: in a repeat block as many as its step is to reach.
     *
     * @throws io.onnxprune.diag.UserException if no weight can become zero, or it cannot be measured
     */
    Result sparsify(PruningState state, PassContext context);
}
