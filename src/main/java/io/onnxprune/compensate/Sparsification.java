// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.SequentialRun;
import io.onnxprune.calibrate.SequentialRun.InputStatistics;
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
 * Zeros within the weights of all products of residual blocks, whose shapes stay: those that matter least to the result of
 * their product, on what the blocks before have become. SparseGPT (arXiv 2301.00774) changes the other weights to make up for
 * them, Wanda (arXiv 2306.11695) does not.
 */
public final class Sparsification implements SequentialRun.Editor {
    /** How zeros are chosen. */
    public enum Method {
        SPARSEGPT,
        WANDA
    }

    /**
     * What is asked for.
     *
     * @param damping share of the mean diagonal of XᵀX that is added to it, for SparseGPT
     */
    public record Request(Method method, Pattern pattern, double damping) {}

    /**
     * What was done.
     *
     * @param matrices how many have zeros now
     * @param weights how many elements they have
     * @param zeros how many of these are zero
     */
    public record Zeros(int matrices, long weights, long zeros) {
        static final Zeros NONE = new Zeros(0, 0, 0);

        /** With those of one more matrix. */
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

        /** The share of zeros. */
        public double share() {
            return weights == 0 ? 0 : (double) zeros / weights;
        }
    }

    private final Request request;
    private final WeightStore store;
    private final Log log;
    private final PrunedLinears linears;
    private final BlockLayers products;
    private final Map<Value, Tensor> updates = new HashMap<>();
    private Zeros zeros = Zeros.NONE;

    /**
     * An editor for a run over the model of {@code state}.
     *
     * @param folder for files of new weights
     * @throws UserException if no product has a weight that may change
     */
    public Sparsification(PrunedState state, LinearLayers consumers, Request request, Path folder, Log log) {
        this.request = request;
        this.store = new WeightStore(folder);
        this.log = log;
        this.linears = new PrunedLinears(state, consumers);
        this.products = new BlockLayers(state, consumers);
    }

    @Override
    public boolean wants(LoweredLinear linear) {
        PrunedLinear layer = linears.of(linear);
        return layer != null && products.contains(layer.dense());
    }

    @Override
    public Map<String, Tensor> edit(List<LoweredLinear> sharing, InputStatistics statistics) {
        Map<String, Tensor> edited = new LinkedHashMap<>();
        if (statistics.positions() == 0) {
            sharing.forEach(linear -> products.unread(linear.node()));
            return edited;
        }
        int inputs = sharing.get(0).input().width();
        try (Matrix a = Matrix.of(statistics.secondMoment().asFloats(), inputs, inputs)) {
            for (LoweredLinear linear : sharing) {
                PrunedLinear layer = linears.of(linear);
                Damping damping = new Damping(
                        request.damping, statistics.positions(), layer.dense().node(), log);
                try (Matrix w = layer.read();
                        Matrix sparse = request.method == Method.WANDA
                                ? LayerSparsifier.wanda(a, w, request.pattern, damping)
                                : LayerSparsifier.sparseGpt(a, w, request.pattern, damping)) {
                    Tensor narrow = layer.toPruned(sparse, store);
                    edited.put(linear.weight(), narrow);
                    updates.put(layer.dense().weight(), layer.isWhole() ? narrow : layer.toOriginal(sparse, store));
                    zeros = zeros.and(sparse);
                }
            }
        }
        return edited;
    }

    /** New weights of the original. */
    public Map<Value, Tensor> updates() {
        products.warn(log);
        return updates;
    }

    /** What was done so far. */
    public Zeros zeros() {
        return zeros;
    }
}
