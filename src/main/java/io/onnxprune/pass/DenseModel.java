// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.latency.Timing;
import io.onnxprune.plan.Allocation;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import java.util.Optional;

/**
 * The model before pruning.
 *
 * @param imported the model as it was read
 * @param structure of the model that is pruned: functions are inlined, and biases may have been added
 * @param layers its linear layers
 * @param given size of the imported model
 * @param hash SHA-256 of its file
 * @param timing its times on this machine; empty where they do not matter
 */
public record DenseModel(
        Model imported,
        Structure structure,
        LinearLayers layers,
        ParameterCount.Size given,
        String hash,
        Optional<Timing> timing) {
    /** The dense model of a file. */
    public static DenseModel of(Model imported, Structure structure, String hash) {
        return new DenseModel(
                imported,
                structure,
                LinearLayers.of(structure),
                ParameterCount.of(structure).dense(),
                hash,
                Optional.empty());
    }

    /** This model with its times. */
    public DenseModel with(Timing times) {
        return new DenseModel(imported, structure, layers, given, hash, Optional.of(times));
    }

    /** This model in another form that computes the same, such as with biases of zeros. */
    public DenseModel withStructure(Structure changed) {
        return new DenseModel(imported, changed, LinearLayers.of(changed), given, hash, timing);
    }

    /** A plan that keeps everything. */
    public Plan keepAll() {
        return Plan.keepAll(hash);
    }

    /** A budget for this model. If its target is a time, the model is timed where that has not been done. */
    public Budget measured(Budget budget) {
        return timing.map(times -> times.in(budget, structure)).orElse(budget);
    }

    /**
     * The share of the parameters that a budget prunes, which tells in how many steps it is reached. For memory and time it is that of
     * a plan in which units are worth the same, if that is more than the share of the memory or time.
     */
    public double share(Budget asked) {
        Budget budget = measured(asked);
        double ratio =
                budget.ratio(ParameterCount.of(structure, budget.currency()).dense());
        if (!budget.currency().isLimit()) {
            return ratio;
        }
        try {
            return Math.max(ratio, Allocation.parameterShare(structure, budget));
        } catch (UserException e) {
            // The passes tell why the target cannot be reached.
            return Math.max(0, ratio);
        }
    }
}
