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
 * Brings the residual stream of a pruned model closer to that of the dense model, block by block. The layers to refit
 * are those X·W whose output is only added to the stream. Each gets ΔW = (A + λI)⁻¹ XᵀE. A is XᵀX of the pruned model
 * with the blocks before it already refitted. E is the stream of the dense model after the block minus that of the
 * pruned model. So a block compensates for its own error and for the error of the blocks before it. A fit to the
 * block's own output cannot do that.
 */
public final class ResidualRefit implements SequentialRun.Editor {
    private final double ridge;
    private final boolean withBiases;
    private final BiasStore biases;
    private final WeightStore store;
    private final Log log;
    private final PrunedLinears linears;
    private final Set<LinearLayer> refitted;
    private final Map<Value, Tensor> updates = new HashMap<>();
    private final Map<String, String> problems = new TreeMap<>();

    /**
     * Creates an editor for a sequential run over the model of {@code state}, beside the dense model.
     *
     * @param layers the linear layers of the dense model
     * @param ridge λ as a share of the mean diagonal of A
     * @param withBiases whether the biases of the layers change too; each layer must have one then
     * @param folder folder for files of new weights
     */
    public ResidualRefit(
            PrunedState state, LinearLayers layers, double ridge, boolean withBiases, Path folder, Log log) {
        this.ridge = ridge;
        this.withBiases = withBiases;
        this.biases = new BiasStore(state);
        this.store = new WeightStore(folder);
        this.log = log;
        this.linears = new PrunedLinears(state, layers);
        this.refitted = layers(state.structure(), layers);
        for (Dimension dimension : state.structure().dimensions()) {
            String problem = PrunedLinears.INNER.contains(dimension.role()) ? layers.problem(dimension) : null;
            if (problem != null && dimension.role() != Role.V_HEAD_DIM) {
                problems.put(dimension.name(), problem);
            }
        }
    }

    /** The layers that may change: the layers of dimensions inside residual blocks. */
    public static Set<LinearLayer> layers(Structure structure, LinearLayers layers) {
        Set<LinearLayer> found = new LinkedHashSet<>();
        structure.dimensions().stream()
                .filter(dimension -> PrunedLinears.INNER.contains(dimension.role()))
                .forEach(dimension -> found.addAll(layers.of(dimension)));
        return found;
    }

    @Override
    public boolean wants(LoweredLinear linear) {
        PrunedLinear layer = linears.of(linear);
        return layer != null && refitted.contains(layer.dense());
    }

    @Override
    public Map<String, Tensor> edit(List<LoweredLinear> linears, InputStatistics statistics) {
        linears.forEach(linear -> {
            String obstacle = statistics.obstacles().get(linear);
            if (obstacle != null) {
                problems.put(linear.node(), "node " + linear.node() + ", since " + obstacle);
            }
        });
        // Layers with the same input share one error, and the first of them takes all of it.
        return linears.stream()
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
            Tensor pruned = layer.toPruned(w, store);
            updates.put(layer.dense().weight(), layer.isDense() ? pruned : layer.toDense(w, store));
            Map<String, Tensor> edited = new HashMap<>();
            edited.put(linear.weight(), pruned);
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

    /** New weights of the dense model, zero for pruned units. */
    public Map<Value, Tensor> updates() {
        if (!problems.isEmpty()) {
            log.warn("the residual stream is not refitted at " + problems.size()
                    + " linear layers or dimensions, such as "
                    + problems.values().iterator().next());
        }
        Map<Value, Tensor> all = new HashMap<>(updates);
        all.putAll(biases.updates());
        return all;
    }
}
