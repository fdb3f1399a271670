// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.dims.Variance;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeMap;
import java.util.stream.Stream;

/**
 * The constants that a change of basis of a dimension changes: matrices of linear layers and biases.
 *
 * @param members one for each constant
 * @param obstacle the reason why the basis cannot change, with the node; empty if it can
 */
public record BasisMembers(List<BasisMembers.Member> members, Optional<String> obstacle) {
    /**
     * A constant with the dimension along one axis.
     *
     * @param constant the weight of {@code layer}, or a bias
     * @param layer the linear layer; empty for a bias
     * @param axis the axis of the constant
     * @param covector whether it is on the side that becomes x·T⁻ᵀ (see {@link Variance})
     * @param lanes for each lane, which has a basis of its own, the indices along the axis: one array for each copy of the
     *     units there, in the order of the units
     */
    public record Member(
            Value constant, Optional<LinearLayer> layer, int axis, boolean covector, List<List<int[]>> lanes) {
        /** Whether the linear layer sums over the dimension. */
        public boolean consumes() {
            return layer.filter(linear -> linear.axis() == axis).isPresent();
        }
    }

    /** Finds what a change of basis of {@code dimension} changes. */
    public static BasisMembers of(DimensionAnalysis analysis, Dimension dimension, LinearLayers layers) {
        Variance variance = Variance.of(analysis, dimension);
        if (variance.obstacle().isPresent()) {
            return new BasisMembers(List.of(), variance.obstacle());
        }
        Map<Value, Member> members = new LinkedHashMap<>();
        for (Map.Entry<Use, Boolean> entry : variance.constants().entrySet()) {
            Use use = entry.getKey();
            Value constant = use.op().input(use.input());
            Optional<LinearLayer> layer = Optional.ofNullable(layers.ofWeight(constant.name()));
            String problem = layer.isPresent() ? null : problem(use, constant, layers, variance);
            int axis = axis(analysis, use, dimension);
            List<List<int[]>> lanes = problem == null ? lanes(analysis, use, axis, dimension, variance) : List.of();
            Member member = new Member(constant, layer, axis, entry.getValue(), lanes);
            Member known = members.putIfAbsent(constant, member);
            boolean differs =
                    known != null && (known.covector != member.covector || known.lanes.size() != lanes.size());
            if (problem == null && (lanes.isEmpty() || differs)) {
                problem = "node " + use.op().node().label() + " uses a constant in another layout";
            }
            if (problem != null) {
                return new BasisMembers(List.of(), Optional.of(problem));
            }
        }
        long counts = members.values().stream()
                .mapToInt(member -> member.lanes.size())
                .distinct()
                .count();
        return counts == 1
                ? new BasisMembers(List.copyOf(members.values()), Optional.empty())
                : new BasisMembers(List.of(), Optional.of("no constants that share its heads have it"));
    }

    /**
     * The reason why a constant that is no weight of a linear layer may not change; null for a bias that changes alike at all its
     * uses.
     */
    private static String problem(Use use, Value constant, LinearLayers layers, Variance variance) {
        Op op = use.op();
        Tensor tensor = constant.constant();
        String known = layers.problems().get(op);
        if (known != null && use.input() == 1) {
            return known;
        }
        boolean vector = tensor.dtype().isFloat()
                && Arrays.stream(tensor.shape()).filter(extent -> extent > 1).count() == 1;
        boolean added = op.node().is("Add") || op.node().is("Gemm") && use.input() == 2;
        if (!vector || !added) {
            return "node " + op.node().label() + " has a constant that is no weight of a linear layer and no bias";
        }
        return constant.uses().stream()
                .filter(other -> !variance.constants().containsKey(other))
                .findFirst()
                .map(other -> "node " + op.node().label() + " shares its bias with node "
                        + other.op().node().label())
                .orElse(null);
    }

    private static int axis(DimensionAnalysis analysis, Use use, Dimension dimension) {
        Dim[] dims = analysis.constantUses().get(use);
        int axis = 0;
        while (!dims[axis].atoms().contains(dimension.atom())) {
            axis++;
        }
        return axis;
    }

    /** The indices along an axis by lane; empty if a lane does not run along this axis. */
    private static List<List<int[]>> lanes(
            DimensionAnalysis analysis, Use use, int axis, Dimension dimension, Variance variance) {
        Dim dim = analysis.constantUses().get(use)[axis];
        int extent = Math.toIntExact(use.op().input(use.input()).constant().dim(axis));
        int[] units = UnitIndex.ofIndices(dim, dimension.atom(), extent);
        List<int[]> places = variance.lanes().stream()
                .map(atom -> UnitIndex.ofIndices(dim, atom, extent))
                .toList();
        Map<List<Integer>, List<List<Integer>>> found = new TreeMap<>((a, b) -> Arrays.compare(
                a.stream().mapToInt(Integer::intValue).toArray(),
                b.stream().mapToInt(Integer::intValue).toArray()));
        for (int index = 0; index < extent; index++) {
            if (units[index] >= 0) {
                int at = index;
                List<Integer> lane = places.stream().map(place -> place[at]).toList();
                if (lane.contains(-1)) {
                    return List.of();
                }
                found.computeIfAbsent(
                                lane,
                                key -> Stream.generate(() -> (List<Integer>) new ArrayList<Integer>())
                                        .limit(dimension.size())
                                        .toList())
                        .get(units[index])
                        .add(index);
            }
        }
        return found.values().stream().map(BasisMembers::copies).toList();
    }

    /** The n-th index of every unit belongs to the n-th copy, because the order of the other factors is the same for all. */
    private static List<int[]> copies(List<List<Integer>> byUnit) {
        List<int[]> copies = new ArrayList<>();
        for (int copy = 0; copy < byUnit.get(0).size(); copy++) {
            int at = copy;
            copies.add(byUnit.stream().mapToInt(indices -> indices.get(at)).toArray());
        }
        return copies;
    }
}
