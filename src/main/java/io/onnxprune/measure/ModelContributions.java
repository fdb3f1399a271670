// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Divergence;
import io.onnxprune.calibrate.ExpertOutput;
import io.onnxprune.calibrate.ExpertWeight;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.ir.Model;
import io.onnxprune.plan.ExpertImportance;
import io.onnxprune.plan.ExpertImportance.Kind;
import io.onnxprune.plan.ExpertImportance.Sums;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.rewrite.Slicer.Slice;
import io.onnxprune.runtime.HostTensor;
import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.function.Function;
import java.util.stream.IntStream;

/**
 * Measures what the experts of a pruned model contribute.
 *
 * @param rows token ids, all rows of equal length
 * @param calibrator runs the pruned model
 * @param calibrators prepares other models
 */
record ModelContributions(
        PrunedState state, List<long[]> rows, Calibrator calibrator, Function<Model, Calibrator> calibrators)
        implements ExpertImportance.Contributions {
    @Override
    public Map<Dimension, Sums> measure(List<Dimension> experts, Kind kind) {
        return kind == Kind.DIVERGENCE ? divergences(experts) : contributions(experts, kind);
    }

    /** Runs the model without each expert that may go, one after the other. */
    private Map<Dimension, Sums> divergences(List<Dimension> experts) {
        Map<Dimension, Sums> measured = new LinkedHashMap<>();
        try (Divergence divergence = Divergence.from(calibrator, calibrator, rows)) {
            for (Dimension dimension : experts) {
                int[] kept = state.plan().kept(dimension);
                double[] found = new double[dimension.size()];
                for (int i = 0;
                        i < kept.length && kept.length > dimension.units().least();
                        i++) {
                    PrunedState without = without(dimension, kept, i);
                    double[] losses = calibrators.apply(without.model()).losses(divergence);
                    found[kept[i]] = Arrays.stream(losses).average().orElseThrow();
                }
                measured.put(dimension, new Sums(found, new double[dimension.size()]));
            }
        }
        return measured;
    }

    private PrunedState without(Dimension dimension, int[] kept, int index) {
        Plan plan = state.plan();
        Map<String, int[]> keep = new LinkedHashMap<>(plan.keep());
        keep.put(
                dimension.name(),
                IntStream.range(0, kept.length)
                        .filter(i -> i != index)
                        .map(i -> kept[i])
                        .toArray());
        return PrunedState.of(
                state.structure(), new Plan(plan.model(), keep, plan.layers(), plan.blocks()), state.updates());
    }

    private Map<Dimension, Sums> contributions(List<Dimension> experts, Kind kind) {
        Map<Dimension, List<Tap.Contribution>> taps = taps(experts, kind);
        Map<Tap, HostTensor> sums = new HashMap<>();
        Set<Tap> all = new LinkedHashSet<>();
        taps.values().forEach(all::addAll);
        if (!all.isEmpty()) {
            calibrator.gather(rows, all, sums::put);
        }
        Map<Dimension, Sums> measured = new LinkedHashMap<>();
        taps.forEach((dimension, own) -> measured.put(dimension, sums(dimension, own, sums)));
        return measured;
    }

    /**
     * What is to be measured for each dimension.
     *
     * @throws UserException if it is not known where the outputs of experts are added
     */
    Map<Dimension, List<Tap.Contribution>> taps(List<Dimension> experts, Kind kind) {
        Map<String, ExpertWeight> sources = new HashMap<>();
        experts.forEach(dimension -> addWeights(dimension, sources));
        Map<String, ExpertWeight> weights = new HashMap<>();
        calibrator.lowered().graph().initializers().keySet().forEach(name -> {
            Slice slice = state.slices().get(name);
            ExpertWeight weight = sources.get(slice == null ? name : slice.source());
            if (weight != null) {
                weights.put(name, weight);
            }
        });
        Map<String, Map<Integer, ExpertOutput>> outputs = new HashMap<>();
        calibrator
                .expertOutputs(weights)
                .forEach(output -> outputs.computeIfAbsent(output.mixture(), key -> new LinkedHashMap<>())
                        .put(output.expert(), output));
        Map<Dimension, List<Tap.Contribution>> taps = new LinkedHashMap<>();
        for (Dimension dimension : experts) {
            taps.put(dimension, taps(dimension, outputs.getOrDefault(dimension.name(), Map.of()), kind));
        }
        return taps;
    }

    private static void addWeights(Dimension dimension, Map<String, ExpertWeight> weights) {
        dimension.members().stream()
                .filter(member -> member.axis() == 0)
                .forEach(member -> weights.put(
                        member.use().op().input(member.use().input()).name(),
                        new ExpertWeight(dimension.name(), ExpertWeight.ALL)));
        for (int expert = 0; expert < dimension.units().own().size(); expert++) {
            ExpertWeight own = new ExpertWeight(dimension.name(), expert);
            dimension.units().own().get(expert).stream()
                    .filter(value -> value.constant().dtype().isFloat())
                    .forEach(value -> weights.put(value.name(), own));
        }
    }

    /** One tap for all kept experts, or one for each of them. */
    private List<Tap.Contribution> taps(Dimension dimension, Map<Integer, ExpertOutput> outputs, Kind kind) {
        Tap.Contribution.Measure measure = switch (kind) {
            case OUTPUT -> Tap.Contribution.Measure.LENGTH;
            case CHANGE -> Tap.Contribution.Measure.CHANGE;
            case FISHER -> Tap.Contribution.Measure.SQUARED_CHANGE;
            case DIVERGENCE -> throw new IllegalArgumentException("a divergence is measured without taps");
        };
        int[] kept = state.plan().kept(dimension);
        ExpertOutput all = outputs.get(ExpertWeight.ALL);
        if (all != null) {
            return List.of(new Tap.Contribution(all.activation(), all.index(), kept.length, measure));
        }
        List<Tap.Contribution> taps = new ArrayList<>();
        boolean ofOwn = !dimension.units().own().isEmpty();
        for (int i = 0; i < kept.length; i++) {
            ExpertOutput output = outputs.get(ofOwn ? kept[i] : i);
            if (output == null) {
                throw new UserException("the experts of " + dimension.name() + " cannot be scored by their outputs:"
                        + " where that of expert " + kept[i]
                        + " is added to those of others is not known; choose another"
                        + " metric, such as taylor");
            }
            taps.add(new Tap.Contribution(output.activation(), "", 1, measure));
        }
        return taps;
    }

    private Sums sums(Dimension dimension, List<Tap.Contribution> taps, Map<Tap, HostTensor> sums) {
        double[] contributions = new double[dimension.size()];
        double[] tokens = new double[dimension.size()];
        int next = 0;
        int[] kept = state.plan().kept(dimension);
        for (Tap.Contribution tap : taps) {
            FloatBuffer values = Objects.requireNonNull(sums.get(tap), "a tap that was not measured")
                    .asFloats();
            for (int i = 0; i < tap.experts(); i++) {
                contributions[kept[next]] = values.get(values.position() + 2 * i);
                tokens[kept[next++]] = values.get(values.position() + 2 * i + 1);
            }
        }
        return new Sums(contributions, tokens);
    }
}
