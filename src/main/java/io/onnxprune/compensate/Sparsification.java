// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.SequentialRun;
import io.onnxprune.calibrate.SequentialRun.InputStatistics;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.LayerSparsifier;
import io.onnxprune.obs.Pattern;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Sets single weights of all linear layers of residual blocks to zero and keeps their shapes. It zeroes the weights
 * that affect the layer's output least, on inputs computed by the already sparse blocks before it. SparseGPT (arXiv
 * 2301.00774) lets the other weights compensate, and here also the bias where a layer has one: it counts as one more input that is
 * always 1 and always kept, which is the same as inputs about their mean. Wanda (arXiv 2306.11695) leaves them unchanged.
 */
public final class Sparsification implements SequentialRun.Editor {
    /** The criterion that chooses zeros. */
    public enum Method {
        SPARSEGPT,
        WANDA
    }

    /**
     * The settings of a run.
     *
     * @param method the criterion
     * @param pattern the sparsity pattern
     * @param damping share of the mean diagonal of XᵀX that is added to it, for SparseGPT
     */
    public record Request(Method method, Pattern pattern, double damping) {}

    /**
     * The sparsity that was reached.
     *
     * @param matrices number of sparse matrices
     * @param weights number of their elements
     * @param zeros number of these elements that are zero
     */
    public record Zeros(int matrices, long weights, long zeros) {
        static final Zeros NONE = new Zeros(0, 0, 0);

        /** These counts plus those of one more matrix. */
        Zeros and(Matrix sparse) {
            long found = 0;
            double[] row = new double[sparse.columns()];
            for (int i = 0; i < sparse.rows(); i++) {
                sparse.getRow(i, row);
                for (double element : row) {
                    found += element == 0 ? 1 : 0;
                }
            }
            return new Zeros(matrices + 1, weights + (long) sparse.rows() * sparse.columns(), zeros + found);
        }

        /** The sparsity: zeros as a share of all elements; 0 without matrices. */
        public double share() {
            return weights == 0 ? 0 : (double) zeros / weights;
        }
    }

    private final Request request;
    private final WeightStore store;
    private final Log log;
    private final PrunedLinears linears;
    private final BlockLayers blockLayers;
    private final BiasStore biases;
    private final Map<Value, Tensor> updates = new HashMap<>();
    private Zeros zeros = Zeros.NONE;

    /**
     * Creates an editor for a sequential run over the model of {@code state}.
     *
     * @param layers the linear layers of the dense model
     * @param folder folder for files of new weights
     * @throws UserException if no linear layer has a weight that may be changed
     */
    public Sparsification(PrunedState state, LinearLayers layers, Request request, Path folder, Log log) {
        this.request = request;
        this.store = new WeightStore(folder);
        this.log = log;
        this.linears = new PrunedLinears(state, layers);
        this.blockLayers = new BlockLayers(state, layers);
        this.biases = new BiasStore(state);
    }

    @Override
    public boolean wants(LoweredLinear linear) {
        PrunedLinear layer = linears.of(linear);
        return layer != null && blockLayers.contains(layer.dense());
    }

    @Override
    public Map<String, Tensor> edit(List<LoweredLinear> layers, InputStatistics statistics) {
        Map<String, Tensor> edited = new LinkedHashMap<>();
        if (statistics.positions() == 0) {
            layers.forEach(linear -> blockLayers.markUnreached(linear.node()));
            return edited;
        }
        int inputs = layers.get(0).input().width();
        double[] total = Statistics.doubles(statistics.total());
        boolean centres = layers.stream().anyMatch(linear -> fitsBias(linears.of(linear)));
        try (Matrix a = Matrix.of(statistics.secondMoment().asFloats(), inputs, inputs);
                Matrix centred = centres ? a.centred(total, (double) statistics.positions()) : null) {
            for (LoweredLinear linear : layers) {
                PrunedLinear layer = linears.of(linear);
                Damping damping = new Damping(
                        request.damping, statistics.positions(), layer.dense().node(), log);
                boolean fitsBias = fitsBias(layer);
                try (Matrix w = layer.read();
                        Matrix sparse = request.method == Method.WANDA
                                ? LayerSparsifier.wanda(a, w, request.pattern, damping)
                                : LayerSparsifier.sparseGpt(fitsBias ? centred : a, w, request.pattern, damping)) {
                    Tensor pruned = layer.toPruned(sparse, store);
                    edited.put(linear.weight(), pruned);
                    updates.put(layer.dense().weight(), layer.isDense() ? pruned : layer.toDense(sparse, store));
                    zeros = zeros.and(sparse);
                    if (fitsBias) {
                        edited.putAll(biases.follow(layer, w, sparse, total, (double) statistics.positions()));
                    }
                }
            }
        }
        return edited;
    }

    private boolean fitsBias(PrunedLinear layer) {
        return request.method == Method.SPARSEGPT && biases.of(layer) != null;
    }

    /** New weights and biases of the dense model. */
    public Map<Value, Tensor> updates() {
        blockLayers.warn(log);
        updates.putAll(biases.updates());
        return updates;
    }

    /** The sparsity reached so far. */
    public Zeros zeros() {
        return zeros;
    }
}
