// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;

/**
 * The model before pruning.
 *
 * @param imported the model as it was read
 * @param structure of the model that is pruned: functions are inlined, and biases may have been added
 * @param layers its linear layers
 * @param given size of the imported model
 * @param hash SHA-256 of its file
 */
public record DenseModel(
        Model imported, Structure structure, LinearLayers layers, ParameterCount.Size given, String hash) {
    /** The dense model of a file. */
    public static DenseModel of(Model imported, Structure structure, String hash) {
        return new DenseModel(
                imported,
                structure,
                LinearLayers.of(structure),
                ParameterCount.of(structure).dense(),
                hash);
    }

    /** This model in another form that computes the same, such as with biases of zeros. */
    public DenseModel withStructure(Structure changed) {
        return new DenseModel(imported, changed, LinearLayers.of(changed), given, hash);
    }

    /** A plan that keeps everything. */
    public Plan keepAll() {
        return Plan.keepAll(hash);
    }
}
