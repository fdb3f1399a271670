// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.SequentialRun;
import io.onnxprune.calibrate.SequentialRun.InputStatistics;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.LeastSquares;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.runtime.HostTensor;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.stream.IntStream;

/**
 * Brings the residual stream of a pruned model near to that of the whole one, block by block: to each product X·W whose
 * result is only added to the stream, ΔW = (A + λI)⁻¹ XᵀE is added, with A = XᵀX of the pruned model as the blocks before have
 * become, and E what the stream of the whole model after the block has more than that of the pruned one. So a block makes up
 * for its own losses and for those before it, which a fit to the results of the same block cannot.
 */
public final class ResidualRefit implements SequentialRun.Editor {
    private final double ridge;
    private final boolean withBiases;
    private final BiasStore biases;
    private final WeightStore store;
    private final Log log;
    private final PrunedLinears linears;
    private final Set<LinearLayer> wanted;
    private final Map<Value, Tensor> updates = new HashMap<>();
    private final Map<String, String> problems = new TreeMap<>();

    /**
     * An editor for a run over the model of {@code state} beside the original.
     *
     * @param ridge λ as a share of the mean diagonal of A
     * @param withBiases whether the biases of the products change too; each must have one
     * @param folder for files of new weights
     */
    public ResidualRefit(
            PrunedState state, LinearLayers consumers, double ridge, boolean withBiases, Path folder, Log log) {
        this.ridge = ridge;
        this.withBiases = withBiases;
        this.biases = new BiasStore(state);
        this.store = new WeightStore(folder);
        this.log = log;
        this.linears = new PrunedLinears(state, consumers);
        this.wanted = layers(state.structure(), consumers);
        for (Dimension dimension : state.structure().dimensions()) {
            String problem = PrunedLinears.INNER.contains(dimension.role()) ? consumers.problem(dimension) : null;
            if (problem != null && dimension.role() != Role.V_HEAD_DIM) {
                problems.put(dimension.name(), problem);
            }
        }
    }

    /** The products that may change: those that sum over what is inside a block. */
    public static Set<LinearLayer> layers(Structure structure, LinearLayers consumers) {
        Set<LinearLayer> found = new LinkedHashSet<>();
        structure.dimensions().stream()
                .filter(dimension -> PrunedLinears.INNER.contains(dimension.role()))
                .forEach(dimension -> found.addAll(consumers.of(dimension)));
        return found;
    }

    @Override
    public boolean wants(LoweredLinear linear) {
        PrunedLinear layer = linears.of(linear);
        return layer != null && wanted.contains(layer.dense());
    }

    @Override
    public Map<String, Tensor> edit(List<LoweredLinear> sharing, InputStatistics statistics) {
        sharing.forEach(linear -> {
            String obstacle = statistics.obstacles().get(linear);
            if (obstacle != null) {
                problems.put(linear.node(), "node " + linear.node() + ", since " + obstacle);
            }
        });
        // Products of one input share one error: the first of them takes all of it.
        return sharing.stream()
                .filter(linear -> !statistics.obstacles().containsKey(linear))
                .findFirst()
                .map(linear -> refit(linear, statistics))
                .orElse(Map.of());
    }

    private Map<String, Tensor> refit(LoweredLinear linear, InputStatistics statistics) {
        PrunedLinear layer = linears.of(linear);
        int inputs = linear.input().width();
        int outputs = linear.output().width();
        Damping damping =
                new Damping(ridge, statistics.positions(), layer.dense().node(), log);
        try (Matrix a = Matrix.of(statistics.secondMoment().asFloats(), inputs, inputs);
                Matrix error = Matrix.of(statistics.error().asFloats(), inputs, outputs);
                LeastSquares.Correction correction = LeastSquares.correction(
                        a, error, IntStream.range(0, inputs).toArray(), sums(statistics), damping);
                Matrix w = layer.read()) {
            WeightStore.add(correction.weights(), w);
            Tensor narrow = layer.toPruned(w, store);
            updates.put(layer.dense().weight(), layer.isWhole() ? narrow : layer.toOriginal(w, store));
            Map<String, Tensor> edited = new HashMap<>();
            edited.put(linear.weight(), narrow);
            if (withBiases) {
                edited.putAll(biases.add(layer, correction.bias()));
            }
            return edited;
        }
    }

    private LeastSquares.Sums sums(InputStatistics statistics) {
        return withBiases
                ? new LeastSquares.Sums(
                        doubles(statistics.total()), doubles(statistics.totalError()), statistics.positions())
                : null;
    }

    private static double[] doubles(HostTensor tensor) {
        float[] values = tensor.toFloats();
        return IntStream.range(0, values.length).mapToDouble(i -> values[i]).toArray();
    }

    /** New weights of the original, zero where something is gone. */
    public Map<Value, Tensor> updates() {
        if (!problems.isEmpty()) {
            log.warn("the residual stream is not refitted at " + problems.size() + " places, such as "
                    + problems.values().iterator().next());
        }
        Map<Value, Tensor> all = new HashMap<>(updates);
        all.putAll(biases.updates());
        return all;
    }
}
