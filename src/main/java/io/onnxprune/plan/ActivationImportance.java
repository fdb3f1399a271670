// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.plan.LayerInputs.Channels;
import java.util.Arrays;
import java.util.BitSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.IntStream;

/**
 * Importance from the inputs and weights of the consumers of a dimension, measured by one forward pass. Each input
 * channel j of a consumer gets one number. It depends on the activations x_j and on the weights W_ij that multiply
 * them.
 * <ul>
 *   <li>{@link Kind#WANDA}: mean_i |W_ij| · √(mean of x_j²), summed over the channels of a unit (Wanda, arXiv
 *       2306.11695, in the structured form that FLAP compares with).
 *   <li>{@link Kind#FLAP}: var(x_j) · Σ_i W_ij². This is the squared error of the output when the channel is
 *       replaced by its mean (FLAP, arXiv 2312.11983). The numbers of a dimension are standardised to mean 0 and
 *       variance 1, so that all layers can compete in one ranking. Then they are averaged over the channels of a unit.
 * </ul>
 */
public final class ActivationImportance implements Importance {
    /** The score of a channel, and of a unit from its channels. */
    public enum Kind {
        WANDA,
        FLAP
    }

    private final Kind kind;
    private final PruneSet prune;
    private final LayerInputs inputs;

    /** Creates scores for the structures of {@code prune}. */
    public ActivationImportance(Kind kind, PruneSet prune, LayerInputs inputs) {
        this.kind = kind;
        this.prune = prune;
        this.inputs = inputs;
    }

    /** Scores the units of dimensions whose consumers are all known. Layers and blocks have score 0. */
    @Override
    public Scores score(Structure structure, Log log) {
        LinearLayers layers = LinearLayers.of(structure);
        Map<Dimension, List<LinearLayer>> consumers = new LinkedHashMap<>();
        structure.dimensions().stream()
                .filter(dimension -> dimension.isPrunable() && prune.roles().contains(dimension.role()))
                .filter(dimension -> layers.problem(dimension) == null)
                .forEach(dimension -> consumers.put(dimension, layers.of(dimension)));
        Set<LinearLayer> wanted = new LinkedHashSet<>();
        consumers.values().forEach(wanted::addAll);
        Map<Value, Channels> measured = inputs.measure(wanted);
        Map<Value, double[]> channels = new LinkedHashMap<>();
        wanted.forEach(
                consumer -> channels.put(consumer.weight(), channels(consumer, measured.get(consumer.weight()))));
        Map<String, double[]> units = new LinkedHashMap<>();
        consumers.forEach((dimension, own) -> units.put(dimension.name(), units(dimension, own, channels)));
        return Scores.ofUnits(units, structure);
    }

    /** The number of each input channel of a consumer. */
    private double[] channels(LinearLayer consumer, Channels input) {
        BitSet axis = new BitSet();
        axis.set(consumer.axis());
        AxisSums.Terms terms = kind == Kind.WANDA ? AxisSums.ABSOLUTES : AxisSums.SQUARES;
        String label = "initializer \"" + consumer.weight().name() + "\", read by node " + consumer.node() + ',';
        double[] numbers =
                new AxisSums(inputs.weight(consumer), axis, terms, label, elements -> {}).along(consumer.axis());
        for (int channel = 0; channel < numbers.length; channel++) {
            numbers[channel] *=
                    kind == Kind.WANDA ? input.rootMeanSquare(channel) / consumer.outputs() : input.variance(channel);
        }
        return numbers;
    }

    private double[] units(Dimension dimension, List<LinearLayer> consumers, Map<Value, double[]> channels) {
        int[] unitOf = consumers.stream()
                .flatMapToInt(consumer -> Arrays.stream(consumer.units(dimension)))
                .toArray();
        double[] numbers = consumers.stream()
                .flatMapToDouble(consumer -> Arrays.stream(channels.get(consumer.weight())))
                .toArray();
        int[] members = IntStream.range(0, unitOf.length)
                .filter(channel -> unitOf[channel] >= 0)
                .toArray();
        if (kind == Kind.FLAP) {
            standardise(numbers, members);
        }
        double[] scores = new double[dimension.size()];
        int[] counts = new int[dimension.size()];
        for (int channel : members) {
            scores[unitOf[channel]] += numbers[channel];
            counts[unitOf[channel]]++;
        }
        if (kind == Kind.FLAP) {
            Arrays.setAll(scores, unit -> scores[unit] / Math.max(1, counts[unit]));
        }
        return scores;
    }

    /** Standardises the numbers of {@code members} to mean 0 and variance 1. Equal numbers all become 0. */
    private static void standardise(double[] numbers, int[] members) {
        double mean = Arrays.stream(members)
                .mapToDouble(channel -> numbers[channel])
                .average()
                .orElse(0);
        double squares = 0;
        for (int channel : members) {
            numbers[channel] -= mean;
            squares += numbers[channel] * numbers[channel];
        }
        double deviation = Math.sqrt(squares / Math.max(1, members.length - 1));
        for (int channel : members) {
            numbers[channel] = deviation > 0 ? numbers[channel] / deviation : 0;
        }
    }
}
