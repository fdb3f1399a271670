// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.dims.Dimension;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.OrderedBasis;
import io.onnxprune.plan.BasisMembers.Member;
import io.onnxprune.plan.LinearLayer;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * Changes the basis of dimensions so that their units are ordered (see {@link OrderedBasis}), without changing what the model
 * computes. The model must still have all units.
 *
 * <p>Second moments come from the linear layers that sum over the dimension, if there are any: of their inputs, and of
 * their rows in the metric of the loss, W G Wᵀ. A dimension that none sums over, as that of queries and keys, has those of
 * the outputs of its producers, W ᵀA W. Copies, such as the query heads of a KV group, share a basis; their moments are added.
 */
public final class BasisChange {
    private final PrunedModel model;
    private final boolean loss;
    private final double damping;
    private final BiasStore biases;
    private final Map<LinearLayer, PrunedLinear> linears = new HashMap<>();
    private final Map<Value, Tensor> changed = new LinkedHashMap<>();

    /**
     * Prepares changes of a model.
     *
     * @param loss whether errors count by what they do to the loss, which takes gradients
     * @param damping added to the diagonal of second moments, as a share of its mean
     */
    public BasisChange(PrunedModel model, boolean loss, double damping) {
        this.model = model;
        this.loss = loss;
        this.damping = damping;
        this.biases = new BiasStore(model.state());
        model.linears().forEach(layer -> linears.put(layer.dense(), layer));
    }

    /**
     * Changes the basis of each dimension.
     *
     * @param dimensions with the constants that change, whose basis can change and whose moments can be measured
     * @return the new contents of these constants
     * @throws io.onnxprune.diag.UserException if a number is out of range
     */
    public Map<Value, Tensor> of(Map<Dimension, List<Member>> dimensions) {
        Set<Tap> taps = new LinkedHashSet<>();
        dimensions.values().forEach(members -> measured(members).forEach(member -> taps.addAll(taps(member))));
        try (Statistics statistics = model.source().of(model.calibrator(), taps)) {
            dimensions.forEach((dimension, members) -> change(dimension, members, statistics));
        }
        return changed;
    }

    /** The consumers, or without any the producers. */
    private static List<Member> measured(List<Member> members) {
        List<Member> consumers = members.stream().filter(Member::consumes).toList();
        return consumers.isEmpty()
                ? members.stream().filter(member -> member.layer().isPresent()).toList()
                : consumers;
    }

    /** The reason why the second moments of a dimension with these members cannot be measured; empty if they can. */
    public Optional<String> obstacle(List<Member> members) {
        return measured(members).stream()
                .map(member -> member.layer().orElseThrow())
                .filter(layer -> !linears.containsKey(layer))
                .findFirst()
                .map(layer -> "the model does not run node " + layer.node() + " between the tokens and the logits");
    }

    private PrunedLinear linear(Member member) {
        return linears.get(member.layer().orElseThrow());
    }

    private List<Tap> taps(Member member) {
        PrunedLinear layer = linear(member);
        boolean bias = !member.consumes() && biases.of(layer) != null;
        List<Tap> taps = new ArrayList<>(Statistics.ofInputs(layer.lowered().input(), bias));
        if (loss && member.consumes()) {
            taps.add(new Tap.GradientSecondMoment(layer.lowered().output()));
        }
        return taps;
    }

    private void change(Dimension dimension, List<Member> members, Statistics statistics) {
        Damping damped = new Damping(damping, statistics.tokens(), dimension.name(), model.log());
        int lanes = members.get(0).lanes().size();
        List<OrderedBasis> bases = new ArrayList<>();
        Moments moments = new Moments(lanes, dimension.size());
        try {
            for (Member member : measured(members)) {
                add(member, statistics, moments);
            }
            for (int lane = 0; lane < lanes; lane++) {
                bases.add(OrderedBasis.of(moments.vectors.get(lane), moments.covectors.get(lane), damped));
            }
            members.forEach(member -> apply(member, bases));
        } finally {
            moments.close();
            bases.forEach(OrderedBasis::close);
        }
    }

    /** The second moments of the vectors and of the covectors of each lane. */
    private record Moments(List<Matrix> vectors, List<Matrix> covectors) implements AutoCloseable {
        Moments(int lanes, int units) {
            this(new ArrayList<>(), new ArrayList<>());
            for (int lane = 0; lane < lanes; lane++) {
                vectors.add(Matrix.zeros(units, units));
                covectors.add(Matrix.zeros(units, units));
            }
        }

        Matrix of(boolean covector, int lane) {
            return (covector ? covectors : vectors).get(lane);
        }

        @Override
        public void close() {
            vectors.forEach(Matrix::close);
            covectors.forEach(Matrix::close);
        }
    }

    private void add(Member member, Statistics statistics, Moments moments) {
        PrunedLinear layer = linear(member);
        boolean consumes = member.consumes();
        double[] bias = consumes ? null : biases.of(layer);
        try (Matrix a = statistics.inputs(layer.lowered().input(), bias != null);
                Matrix w = layer.read(bias);
                Matrix rows = consumes ? w.copy() : w.transposed();
                Matrix metric = consumes ? gradients(layer, statistics) : a.copy()) {
            for (int lane = 0; lane < member.lanes().size(); lane++) {
                for (int[] copy : member.lanes().get(lane)) {
                    try (Matrix own = rows.selectRows(copy);
                            Matrix weighted = metric == null ? own.copy() : Blas.product(own, metric)) {
                        Blas.multiply(1, weighted, false, own, true, 1, moments.of(member.covector(), lane));
                    }
                    if (consumes) {
                        try (Matrix inputs = a.select(copy, copy)) {
                            WeightStore.add(inputs, moments.of(!member.covector(), lane));
                        }
                    }
                }
            }
        }
    }

    private Matrix gradients(PrunedLinear layer, Statistics statistics) {
        return loss ? statistics.gradients(layer.lowered().output()) : null;
    }

    private void apply(Member member, List<OrderedBasis> bases) {
        Value constant = member.constant();
        Tensor present =
                changed.getOrDefault(constant, model.state().updates().getOrDefault(constant, constant.constant()));
        boolean matrix = member.layer().isPresent();
        int axis = matrix ? member.axis() : 0;
        Tensor flat = matrix ? present : Tensor.ofFloats(present.dtype(), column(present), present.toFloats());
        try (Matrix rows = WeightStore.read(flat, axis)) {
            for (int lane = 0; lane < bases.size(); lane++) {
                for (int[] copy : member.lanes().get(lane)) {
                    turn(rows, copy, bases.get(lane), member.covector());
                }
            }
            String label = member.layer().map(LinearLayer::node).orElse(constant.name());
            Tensor turned = new WeightStore(model.folder()).write(rows, flat, axis, label);
            changed.put(constant, matrix ? turned : Tensor.of(present.dtype(), present.shape(), turned.bytes()));
        }
    }

    private static long[] column(Tensor vector) {
        return new long[] {vector.elements(), 1};
    }

    /** Rows x along the dimension become x·T, or x·T⁻ᵀ for covectors: their transpose is multiplied from the left. */
    private static void turn(Matrix rows, int[] units, OrderedBasis basis, boolean covector) {
        double[] row = new double[rows.columns()];
        try (Matrix own = rows.selectRows(units);
                Matrix turned = Matrix.zeros(units.length, rows.columns())) {
            Blas.multiply(1, covector ? basis.inverse() : basis.basis(), !covector, own, false, 0, turned);
            for (int i = 0; i < units.length; i++) {
                turned.getRow(i, row);
                rows.setRow(units[i], row);
            }
        }
    }
}
