// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.ResidualStream;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.LeastSquares;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.Plan;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.IntStream;

/**
 * Weights with which a model of unchanged shapes computes what it would compute with fewer units and blocks. The rows of a
 * consumer X·W for units that go become zero, and the kept rows K become A_KK⁻¹ A_K: W with A = XᵀX, as after {@link
 * LayerwisePruning} of this layer alone. Where a block goes, the linear layer that it ends in and its bias are zero.
 *
 * <p>The weights of each layer and set of kept rows are solved for once and lie in mapped files (a "supernet", as in
 * Týr-the-Pruner, arXiv 2503.09657). {@link #retain} limits them to those of a few plans.
 */
final class CandidateWeights implements AutoCloseable {
    /** Operators whose first input decides alone whether the result is zero, element by element. */
    private static final Set<String> MOVES =
            Set.of("Identity", "Reshape", "Cast", "Dropout", "Transpose", "Squeeze", "Unsqueeze", "Flatten");

    private final PrunedModel model;
    private final Structure structure;
    private final double damping;
    private final WeightStore store;
    private final Statistics statistics;
    private final List<PrunedLinear> consumers = new ArrayList<>();
    private final Map<LinearLayer, PrunedLinear> linears = new LinkedHashMap<>();
    private final Map<Key, Map<String, Tensor>> solved = new HashMap<>();

    /** A layer with the rows that it keeps; null for a layer whose block goes. */
    private record Key(LinearLayer layer, BitSet rows) {}

    /**
     * Measures A of all consumers of the dimensions that {@link #canChange}.
     *
     * @param damping added to the diagonal of A, as a share of its mean
     * @throws io.onnxprune.diag.UserException if a run fails
     */
    CandidateWeights(PrunedModel model, double damping) {
        this.model = model;
        this.structure = model.state().structure();
        this.damping = damping;
        this.store = new WeightStore(model.folder());
        model.linears().forEach(layer -> linears.put(layer.dense(), layer));
        BiasStore biases = new BiasStore(model.state());
        Set<Tap> taps = new LinkedHashSet<>();
        for (PrunedLinear layer : linears.values()) {
            if (structure.dimensions().stream()
                    .anyMatch(d -> canChange(d) && layer.dense().consumes(d))) {
                consumers.add(layer);
                taps.addAll(Statistics.ofInputs(layer.lowered().input(), biases.of(layer) != null));
            }
        }
        this.statistics = model.source().of(model.calibrator(), taps);
    }

    /** Whether units of a dimension can go by changes of weights alone: all its consumers are known and run. */
    boolean canChange(Dimension dimension) {
        List<LinearLayer> all = model.layers().of(dimension);
        return PrunedLinears.INNER.contains(dimension.role())
                && model.layers().problem(dimension) == null
                && !all.isEmpty()
                && linears.keySet().containsAll(all);
    }

    /** Whether a residual block can go by changes of weights alone: it ends in one linear layer that can be zero. */
    boolean canGo(int block) {
        return end(structure.stream().blocks().get(block)).isPresent();
    }

    /** The linear layer that alone makes what a block adds to the stream, possibly with a bias of its own. */
    private Optional<PrunedLinear> end(Block block) {
        boolean biased = false;
        if (ResidualStream.isSkipNormalization(block.add())) {
            int bias = block.add().node().is("SkipLayerNormalization") ? 4 : 3;
            biased = block.add().input(bias) != null;
        }
        Op op = block.branch().producer();
        while (op != null && block.ops().contains(op) && linear(op) == null) {
            boolean adds = op.node().is("Add");
            Value next = adds ? added(op) : MOVES.contains(op.node().op()) ? op.input(0) : null;
            if (next == null) {
                return Optional.empty();
            }
            biased |= adds;
            op = next.producer();
        }
        PrunedLinear found = op == null ? null : linear(op);
        boolean gemm = op != null && op.node().is("Gemm") && op.input(2) != null;
        boolean known = found != null
                && (!(biased || gemm) || new BiasStore(model.state()).of(found) != null)
                && block.ops().containsAll(model.layers().applications(found.dense()));
        return known ? Optional.of(found) : Optional.empty();
    }

    /** The operand of an addition that a constant is added to; null for any other addition. */
    private static Value added(Op op) {
        boolean first = op.input(1).constant() != null;
        return first == (op.input(0).constant() != null) ? null : op.input(first ? 0 : 1);
    }

    private PrunedLinear linear(Op op) {
        return linears.values().stream()
                .filter(layer -> model.layers().applications(layer.dense()).contains(op))
                .findFirst()
                .orElse(null);
    }

    /**
     * The contents of the initializers that differ from those of the model, by name.
     *
     * @param plan a plan that keeps no more than the model has
     * @throws io.onnxprune.diag.UserException when A cannot be inverted
     */
    Map<String, Tensor> of(Plan plan) {
        Map<String, Tensor> all = new HashMap<>();
        keys(plan).forEach((key, layer) -> all.putAll(solved.computeIfAbsent(key, unused -> solve(key, layer))));
        return all;
    }

    /** Forgets all weights but those of the given plans. */
    void retain(List<Plan> plans) {
        Set<Key> kept = new HashSet<>();
        plans.forEach(plan -> kept.addAll(keys(plan).keySet()));
        solved.keySet().retainAll(kept);
    }

    private Map<Key, PrunedLinear> keys(Plan plan) {
        Map<Key, PrunedLinear> keys = new LinkedHashMap<>();
        Set<LinearLayer> ended = new HashSet<>();
        List<Block> blocks = structure.stream().blocks();
        for (int i = 0; i < blocks.size(); i++) {
            boolean goes = plan.removesBlock(i, blocks.get(i).layer())
                    && !model.state().plan().removesBlock(i, blocks.get(i).layer());
            if (goes) {
                PrunedLinear end = end(blocks.get(i)).orElseThrow();
                ended.add(end.dense());
                keys.put(new Key(end.dense(), null), end);
            }
        }
        for (PrunedLinear layer : consumers) {
            BitSet rows = rows(layer, plan);
            if (!ended.contains(layer.dense()) && rows.cardinality() < layer.rows().length) {
                keys.put(new Key(layer.dense(), rows), layer);
            }
        }
        return keys;
    }

    /** The input channels in the model that belong to no unit that goes. */
    private BitSet rows(PrunedLinear layer, Plan plan) {
        BitSet rows = new BitSet();
        rows.set(0, layer.rows().length);
        for (Dimension dimension : structure.dimensions()) {
            int[] kept = plan.keep().get(dimension.name());
            if (kept != null && layer.dense().consumes(dimension)) {
                List<int[]> units = layer.units(dimension);
                for (int unit = 0; unit < units.size(); unit++) {
                    if (Arrays.binarySearch(kept, unit) < 0) {
                        IntStream.of(units.get(unit)).forEach(rows::clear);
                    }
                }
            }
        }
        return rows;
    }

    private Map<String, Tensor> solve(Key key, PrunedLinear layer) {
        BiasStore biases = new BiasStore(model.state());
        double[] bias = biases.of(layer);
        int inputs = layer.rows().length;
        Map<String, Tensor> contents = new HashMap<>();
        try (Matrix w = layer.read(bias);
                Matrix all = key.rows == null ? Matrix.zeros(w.rows(), w.columns()) : kept(key.rows, w, layer);
                Matrix changed = all.block(0, 0, inputs, all.columns())) {
            contents.put(layer.lowered().weight(), layer.toPruned(changed, store));
            if (bias != null) {
                double[] shift = new double[bias.length];
                all.getRow(all.rows() - 1, shift);
                for (int i = 0; i < shift.length; i++) {
                    shift[i] -= bias[i];
                }
                contents.putAll(biases.add(layer, shift));
            }
        }
        return contents;
    }

    /** The kept rows that bring X·W nearest to what it was; a bias is one more row, which stays. */
    private Matrix kept(BitSet rows, Matrix w, PrunedLinear layer) {
        BitSet all = (BitSet) rows.clone();
        boolean biased = w.rows() > layer.rows().length;
        all.set(layer.rows().length, w.rows());
        Damping solving = new Damping(damping, statistics.tokens(), layer.node(), model.log());
        try (Matrix a = statistics.inputs(layer.lowered().input(), biased)) {
            return LeastSquares.keep(a, w, all.stream().toArray(), solving);
        }
    }

    @Override
    public void close() {
        statistics.close();
    }
}
