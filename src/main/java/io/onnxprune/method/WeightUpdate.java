// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.compensate.LayerwisePruning;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.option.Part;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import java.util.Map;
import java.util.Optional;

/** Changes the kept weights so that they compensate for what a plan prunes. */
public interface WeightUpdate extends Part {
    /** Whether it changes weights at all, for which it needs calibration rows. */
    default boolean changesWeights() {
        return true;
    }

    /** Whether biases change, so that each consumer of what is pruned must have one. */
    default boolean changesBiases() {
        return false;
    }

    /**
     * The form in which this update runs layer by layer, on the model as the layers before have become; empty if it does not.
     */
    default Optional<LayerwisePruning.Update> layerwise() {
        return Optional.empty();
    }

    /** Whether a layer-by-layer run can use this update. */
    default boolean isLayerwise() {
        return layerwise().isPresent() || !changesWeights();
    }

    /** What this update measures, if that is nothing but second moments of the state before the choice. */
    default Pass.Moments moments() {
        return Pass.Moments.NONE;
    }

    /** Whether this update computes gradients. */
    default boolean differentiates() {
        return moments() == Pass.Moments.FISHER;
    }

    /** The work of one update. */
    default Cost cost(CostModel model) {
        return Cost.NONE;
    }

    /**
     * New full-size weights of the dense model for the choice of {@code state}, with zeros where something is pruned.
     *
     * @throws io.onnxprune.diag.UserException if they cannot be solved for
     */
    Map<Value, Tensor> update(PruningState state, PassContext context);
}
