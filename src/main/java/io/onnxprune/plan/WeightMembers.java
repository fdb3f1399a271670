// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.calibrate.AxisReduction;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.DimensionAnalysis.Member;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Function;
import java.util.function.Predicate;
import java.util.stream.IntStream;

/**
 * The weights along prunable dimensions, and the reduction of sums over their slices to scores.
 *
 * <p>A member gives every unit one number for each index of the unit: 64 rows for a head of size 64, 256 where four
 * query heads share the KV group, one for an FFN channel. Members are aligned by the index within the unit. A longer
 * member is folded onto the shortest length: (groups, repeats, size) is summed over the repeats. Then the members are
 * reduced channel by channel, and the channels of a unit are added. A concatenation (gate ⊕ up in one matrix) counts as
 * one member for each part.
 */
final class WeightMembers {
    /** When integers count. */
    enum Integers {
        /** In place of their scales. */
        ALWAYS,
        /** Only where nothing else counts. Integers of different scales then count equally. */
        AT_LAST
    }

    /** One axis of a tensor that carries a dimension. */
    private record Slices(Tensor tensor, int axis, Dim dim) {}

    private final Structure structure;
    private final Map<Dimension, List<Slices>> members = new LinkedHashMap<>();
    private final Map<Dimension, List<Own>> own = new HashMap<>();
    private final Map<Tensor, BitSet> axes = new LinkedHashMap<>();
    private final Map<Tensor, String> labels = new HashMap<>();
    private final Map<Tensor, String> names = new LinkedHashMap<>();
    private final Map<Tensor, IntegerWeights> integers = new HashMap<>();

    /** Constants of each unit that no other unit uses, such as one matrix of each expert. */
    private record Own(List<List<Tensor>> units) {}

    /** Collects the members of the prunable dimensions that are {@code wanted}. */
    WeightMembers(Structure structure, Predicate<Dimension> wanted, Integers counting, Log log) {
        this.structure = structure;
        nameConstants();
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable() && wanted.test(dimension)) {
                members.put(dimension, membersOf(dimension, counting, log));
                own.put(dimension, ownOf(dimension));
            }
        }
    }

    /** The tensors to measure, with the axes along which sums are needed. */
    Map<Tensor, BitSet> axes() {
        return axes;
    }

    /** The name of a tensor in messages: the initializer and its first consumer. */
    String label(Tensor tensor) {
        return labels.get(tensor);
    }

    /** The name of the initializer. */
    String name(Tensor tensor) {
        return names.get(tensor);
    }

    private void nameConstants() {
        for (Use use : structure.analysis().constantUses().keySet()) {
            Value value = use.op().input(use.input());
            names.putIfAbsent(value.constant(), value.name());
            labels.putIfAbsent(
                    value.constant(),
                    "initializer \"" + value.name() + "\", read by node "
                            + use.op().node().label() + ',');
        }
    }

    /** The members that count, in order of execution. A shared weight counts once. */
    private List<Slices> membersOf(Dimension dimension, Integers counting, Log log) {
        List<Member> inOrder = new ArrayList<>(dimension.members());
        inOrder.sort(
                Comparator.comparingInt((Member member) -> member.use().op().index())
                        .thenComparingInt(member -> member.use().input()));
        Set<Tensor> scaling = new HashSet<>();
        if (counting == Integers.ALWAYS) {
            inOrder.forEach(member -> scaling.addAll(IntegerWeights.scaling(member.use())));
        }
        List<Slices> slices = slices(inOrder, member -> counts(member, counting == Integers.ALWAYS, scaling));
        if (slices.isEmpty()) {
            slices = slices(inOrder, member -> counts(member, true, scaling));
        }
        if (slices.isEmpty()) {
            log.warn(dimension.name() + " has only integer weights without scales along it, so all its units score 0");
        }
        return slices;
    }

    /** The weights that only one unit uses: one member for each of its constants, if all units have as many. */
    private List<Own> ownOf(Dimension dimension) {
        List<List<Tensor>> units = dimension.units().own().stream()
                .map(values -> values.stream()
                        .filter(value -> value.constant().dtype().isFloat()
                                && value.constant().elements() > 1)
                        .sorted(Comparator.comparingInt(
                                value -> value.uses().get(0).op().index()))
                        .map(Value::constant)
                        .toList())
                .toList();
        units.forEach(tensors -> tensors.forEach(
                tensor -> axes.computeIfAbsent(tensor, key -> new BitSet()).set(0)));
        int most = units.stream().mapToInt(List::size).max().orElse(0);
        if (units.stream().anyMatch(tensors -> tensors.size() != most)) {
            return List.of(new Own(units));
        }
        return IntStream.range(0, most)
                .mapToObj(index -> new Own(units.stream()
                        .map(tensors -> List.of(tensors.get(index)))
                        .toList()))
                .toList();
    }

    private static boolean counts(Member member, boolean withIntegers, Set<Tensor> scaling) {
        return member.tensor().dtype().isFloat() || IntegerWeights.isCast(member.use())
                ? !scaling.contains(member.tensor())
                : withIntegers && IntegerWeights.at(member.use()) != null;
    }

    private List<Slices> slices(List<Member> inOrder, Predicate<Member> counts) {
        List<Slices> slices = new ArrayList<>();
        for (Member member : inOrder) {
            Tensor tensor = member.tensor();
            if (member.dim().isDynamic() || !counts.test(member)) {
                continue;
            }
            boolean repeated = slices.stream().anyMatch(other -> other.tensor == tensor && other.axis == member.axis());
            if (!repeated) {
                slices.add(new Slices(tensor, member.axis(), member.dim()));
                axes.computeIfAbsent(tensor, key -> new BitSet()).set(member.axis());
                if (!tensor.dtype().isFloat()) {
                    integers.putIfAbsent(tensor, IntegerWeights.at(member.use()));
                }
            }
        }
        return slices;
    }

    /** Terms for the elements of a tensor, where integers are taken relative to the zero point. */
    AxisSums.Terms counted(Tensor tensor, AxisSums.Terms terms) {
        IntegerWeights weights = integers.get(tensor);
        return weights == null ? terms : weights.counted(terms);
    }

    /**
     * The sums of a term along the axes of a tensor, where integers are taken relative to the zero point.
     *
     * @param weights the tensor's contents where the gradients were taken
     */
    AxisReduction reduction(Tensor tensor, AxisReduction.Term term, Tensor weights) {
        IntegerWeights integer = integers.get(tensor);
        return integer == null
                ? new AxisReduction(term, weights, new long[] {0}, 0, axes.get(tensor))
                : integer.reduction(term, weights, axes.get(tensor));
    }

    /** The names of the dimensions without a member in {@code measured}. */
    List<String> without(Set<Tensor> measured) {
        return members.entrySet().stream()
                .filter(entry -> !entry.getValue().isEmpty()
                        && entry.getValue().stream().noneMatch(member -> measured.contains(member.tensor)))
                .map(entry -> entry.getKey().name())
                .toList();
    }

    /** Computes scores from the sums over the slices of each tensor. A tensor without sums does not count. */
    Scores scores(Map<Tensor, AxisSums> sums, Reduction reduction) {
        Map<String, double[]> units = new HashMap<>();
        members.forEach((dimension, slices) ->
                units.put(dimension.name(), units(dimension, byMember(dimension, slices, sums), reduction)));
        ParameterCount count = ParameterCount.of(structure);
        Function<int[], Double> depth =
                blocks -> total(count.constantsOf(ParameterCount.bits(blocks)), sums, reduction);
        double[] layers = PrunableBlocks.layers(structure).stream()
                .mapToDouble(depth::apply)
                .toArray();
        double[] blocks = new double[structure.stream().blocks().size()];
        for (int[] copies : PrunableBlocks.blocks(structure)) {
            double score = depth.apply(copies);
            Arrays.stream(copies).forEach(index -> blocks[index] = score);
        }
        return new Scores(units, layers, blocks);
    }

    /** The values of each member by unit. */
    private List<double[][]> byMember(Dimension dimension, List<Slices> slices, Map<Tensor, AxisSums> sums) {
        List<double[][]> byMember = new ArrayList<>();
        for (Slices member : slices) {
            AxisSums measured = sums.get(member.tensor);
            if (measured == null) {
                continue;
            }
            int offset = 0;
            for (Dim part : member.dim.segments()) {
                int extent = Math.toIntExact(part.size(0));
                if (part.atoms().contains(dimension.atom())) {
                    double[] own = Arrays.copyOfRange(measured.along(member.axis), offset, offset + extent);
                    byMember.add(byUnit(part, dimension, own));
                }
                offset += extent;
            }
        }
        for (Own each : own.get(dimension)) {
            boolean isMeasured = each.units.stream().flatMap(List::stream).allMatch(sums::containsKey);
            if (isMeasured) {
                byMember.add(each.units.stream()
                        .map(tensors -> new double[] {
                            tensors.stream()
                                    .mapToDouble(
                                            tensor -> Math.abs(sums.get(tensor).total()))
                                    .sum()
                        })
                        .toArray(double[][]::new));
            }
        }
        return byMember;
    }

    private static double[] units(Dimension dimension, List<double[][]> byMember, Reduction reduction) {
        double[] scores = new double[dimension.size()];
        for (int unit = 0; unit < scores.length; unit++) {
            scores[unit] = unit(byMember, unit, reduction);
        }
        return scores;
    }

    /** The values along {@code dim} grouped by unit, in order of the index within the unit. */
    private static double[][] byUnit(Dim dim, Dimension dimension, double[] values) {
        int[] unitOf = UnitIndex.ofIndices(dim, dimension.atom(), values.length);
        int[] counts = new int[dimension.size()];
        for (int unit : unitOf) {
            if (unit >= 0) {
                counts[unit]++;
            }
        }
        double[][] sorted = new double[dimension.size()][];
        Arrays.setAll(sorted, unit -> new double[counts[unit]]);
        Arrays.fill(counts, 0);
        for (int index = 0; index < values.length; index++) {
            int unit = unitOf[index];
            if (unit >= 0) {
                sorted[unit][counts[unit]++] = Math.abs(values[index]);
            }
        }
        return sorted;
    }

    private static double unit(List<double[][]> members, int unit, Reduction reduction) {
        int channels =
                members.stream().mapToInt(member -> member[unit].length).min().orElse(0);
        double score = 0;
        double[] stack = new double[members.size()];
        for (int channel = 0; channel < channels; channel++) {
            for (int i = 0; i < stack.length; i++) {
                double[] values = members.get(i)[unit];
                stack[i] = 0;
                for (int index = channel; index < values.length; index += channels) {
                    stack[i] += values[index];
                }
            }
            score += reduction.of(stack);
        }
        return score;
    }

    /** The score of several tensors that are pruned entirely, in order of execution. */
    private double total(Set<Tensor> weights, Map<Tensor, AxisSums> sums, Reduction reduction) {
        Set<Tensor> inOrder = new LinkedHashSet<>(names.keySet());
        inOrder.retainAll(weights);
        return reduction.of(inOrder.stream()
                .filter(sums::containsKey)
                .mapToDouble(tensor -> Math.abs(sums.get(tensor).total()))
                .toArray());
    }
}
