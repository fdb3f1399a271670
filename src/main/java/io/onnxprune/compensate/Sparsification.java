package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Linear;
import io.onnxprune.calibrate.SequentialRun;
import io.onnxprune.calibrate.SequentialRun.InputStatistics;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.Pattern;
import io.onnxprune.obs.Sweep;
import io.onnxprune.plan.Consumers;
import io.onnxprune.plan.Consumers.Consumer;
import io.onnxprune.rewrite.PrunedState;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

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
        /** The share of zeros. */
        public double share() {
            return weights == 0 ? 0 : (double) zeros / weights;
        }
    }

    private final Request request;
    private final WeightStore store;
    private final Log log;
    private final Sites sites;
    private final Set<Consumer> wanted = new LinkedHashSet<>();
    private final Map<String, String> problems = new LinkedHashMap<>();
    private final Map<Value, Tensor> updates = new HashMap<>();
    private long weights;
    private long zeros;

    /**
     * An editor for a run over the model of {@code state}.
     *
     * @param folder for files of new weights
     * @throws UserException if no product has a weight that may change
     */
    public Sparsification(PrunedState state, Consumers consumers, Request request, Path folder, Log log) {
        this.request = request;
        this.store = new WeightStore(folder);
        this.log = log;
        this.sites = new Sites(state, consumers);
        Set<Op> inside = new HashSet<>();
        List<Block> blocks = state.structure().stream().blocks();
        for (int index = 0; index < blocks.size(); index++) {
            if (!state.plan().removesBlock(index, blocks.get(index).layer())) {
                inside.addAll(blocks.get(index).ops());
            }
        }
        for (Consumer consumer : consumers.all()) {
            if (consumers.applications(consumer).stream().anyMatch(inside::contains)) {
                wanted.add(consumer);
            }
        }
        consumers.problems().forEach((op, problem) -> {
            if (inside.contains(op)) {
                problems.put(op.node().label(), problem);
            }
        });
        if (wanted.isEmpty()) {
            throw new UserException("no weight of this model can become zero: "
                    + problems.values().stream().findFirst().orElse("it has no residual blocks"));
        }
    }

    @Override
    public boolean wants(Linear linear) {
        Site site = sites.of(linear);
        return site != null && wanted.contains(site.consumer());
    }

    @Override
    public Map<String, Tensor> edit(List<Linear> sharing, InputStatistics statistics) {
        Map<String, Tensor> edited = new LinkedHashMap<>();
        if (statistics.positions() == 0) {
            sharing.forEach(linear -> problems.put(linear.node(), "node " + linear.node() + " reads no token"));
            return edited;
        }
        int inputs = sharing.get(0).input().width();
        try (Matrix a = Matrix.of(statistics.secondMoment().asFloats(), inputs, inputs)) {
            for (Linear linear : sharing) {
                Site site = sites.of(linear);
                Damping damping = new Damping(
                        request.damping, statistics.positions(), site.consumer().node(), log);
                try (Matrix w = site.read();
                        Matrix sparse = request.method == Method.WANDA
                                ? Sweep.wanda(a, w, request.pattern, damping)
                                : Sweep.sparseGpt(a, w, request.pattern, damping)) {
                    Tensor narrow = site.narrow(sparse, store);
                    edited.put(linear.weight(), narrow);
                    updates.put(site.consumer().weight(), site.isWhole() ? narrow : site.wide(sparse, store));
                    count(sparse);
                }
            }
        }
        return edited;
    }

    private void count(Matrix sparse) {
        double[] row = new double[sparse.columns()];
        for (int i = 0; i < sparse.rows(); i++) {
            sparse.getRow(i, row);
            for (double element : row) {
                zeros += element == 0 ? 1 : 0;
            }
        }
        weights += (long) sparse.rows() * sparse.columns();
    }

    /** New weights of the original. */
    public Map<Value, Tensor> updates() {
        problems.values().stream()
                .findFirst()
                .ifPresent(first ->
                        log.warn(problems.size() + " products of residual blocks keep their weights: " + first));
        return updates;
    }

    /** What was done so far. */
    public Zeros zeros() {
        return new Zeros(updates.size(), weights, zeros);
    }
}
