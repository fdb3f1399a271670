package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.DimensionAnalysis.Member;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * Magnitude scores: Σ|w|ᵖ over the slice that a unit has in each member, reduced over the members (the baseline of
 * LLM-Pruner, arXiv 2305.11627). Weights are streamed from their file, each tensor once for all dimensions that it
 * carries.
 */
public final class Magnitude implements Importance {
    /** What is summed over a slice. */
    public enum Norm {
        L1,
        L2
    }

    /** How the sums of a group's members become one score. */
    public enum Reduction {
        SUM,
        MEAN,
        MAX
    }

    /** One axis of a float tensor that carries a dimension. */
    private record Slices(Tensor tensor, int axis, Dim dim) {}

    private final Norm norm;
    private final Reduction reduction;
    private final int threads;

    /** {@code threads} are used over tensors; the scores do not depend on their number. */
    public Magnitude(Norm norm, Reduction reduction, int threads) {
        this.norm = norm;
        this.reduction = reduction;
        this.threads = threads;
    }

    @Override
    public Scores score(Structure structure, Log log) {
        ParameterCount count = ParameterCount.of(structure);
        Map<Dimension, List<Slices>> members = new LinkedHashMap<>();
        Map<Tensor, BitSet> axes = new HashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            if (dimension.isPrunable()) {
                members.put(dimension, floatMembers(dimension, axes, log));
            }
        }
        List<Set<Tensor>> layers = weights(Depth.layers(structure), count, axes.keySet());
        List<Set<Tensor>> blocks = weights(Depth.blocks(structure), count, axes.keySet());
        Map<Tensor, AxisNorms> norms = measure(structure, axes, log);

        Map<String, double[]> units = new HashMap<>();
        members.forEach((dimension, slices) -> units.put(dimension.name(), reduce(dimension, slices, norms)));
        double[] layerScores =
                layers.stream().mapToDouble(set -> reduce(set, norms)).toArray();
        double[] blockScores = new double[structure.stream().blocks().size()];
        List<int[]> copies = Depth.blocks(structure);
        for (int i = 0; i < copies.size(); i++) {
            double score = reduce(blocks.get(i), norms);
            Arrays.stream(copies.get(i)).forEach(index -> blockScores[index] = score);
        }
        return new Scores(units, layerScores, blockScores);
    }

    /** The float members, those that several places share once, their axes noted in {@code axes}. */
    private static List<Slices> floatMembers(Dimension dimension, Map<Tensor, BitSet> axes, Log log) {
        List<Slices> slices = new ArrayList<>();
        for (Member member : dimension.members()) {
            if (!member.tensor().dtype().isFloat() || member.dim().isDynamic()) {
                continue;
            }
            BitSet known = axes.computeIfAbsent(member.tensor(), key -> new BitSet());
            boolean repeated =
                    slices.stream().anyMatch(other -> other.tensor == member.tensor() && other.axis == member.axis());
            if (!repeated) {
                slices.add(new Slices(member.tensor(), member.axis(), member.dim()));
                known.set(member.axis());
            }
        }
        if (slices.isEmpty()) {
            log.warn(dimension.name() + " has only integer weights without scales along it, so all its units score 0");
        }
        return slices;
    }

    /** The weights of each layer or block. Constants that carry no prunable dimension (masks, scalars) are none. */
    private static List<Set<Tensor>> weights(List<int[]> depth, ParameterCount count, Set<Tensor> members) {
        List<Set<Tensor>> result = new ArrayList<>();
        for (int[] indices : depth) {
            Set<Tensor> weights = count.constantsOf(ParameterCount.bits(indices));
            weights.retainAll(members);
            result.add(weights);
        }
        return result;
    }

    private Map<Tensor, AxisNorms> measure(Structure structure, Map<Tensor, BitSet> axes, Log log) {
        Map<Tensor, String> labels = labels(structure);
        List<Tensor> largestFirst = new ArrayList<>(axes.keySet());
        largestFirst.sort(
                Comparator.comparingLong((Tensor tensor) -> tensor.elements()).reversed());
        long total = largestFirst.stream().mapToLong(Tensor::elements).sum();
        Map<Tensor, AxisNorms> norms = new HashMap<>();
        ExecutorService workers = Executors.newFixedThreadPool(Math.max(1, threads));
        try (Log.Progress progress = log.progress("measuring weights", total)) {
            Map<Tensor, Future<AxisNorms>> running = new HashMap<>();
            for (Tensor tensor : largestFirst) {
                running.put(
                        tensor,
                        workers.submit(() -> new AxisNorms(
                                tensor, axes.get(tensor), norm == Norm.L2, labels.get(tensor), elements -> {
                                    synchronized (progress) {
                                        progress.step(elements);
                                    }
                                })));
            }
            for (Tensor tensor : largestFirst) {
                norms.put(tensor, result(running.get(tensor)));
            }
        } finally {
            workers.shutdownNow();
        }
        return norms;
    }

    private static AxisNorms result(Future<AxisNorms> future) {
        try {
            return future.get();
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new IllegalStateException("interrupted while weights were read", e);
        } catch (ExecutionException e) {
            if (e.getCause() instanceof RuntimeException cause) {
                throw cause;
            }
            throw new IllegalStateException(e.getCause());
        }
    }

    /** How messages name a constant: the initializer and the first node that reads it. */
    private static Map<Tensor, String> labels(Structure structure) {
        Map<Tensor, String> labels = new HashMap<>();
        for (Use use : structure.analysis().constantUses().keySet()) {
            labels.putIfAbsent(
                    use.op().input(use.input()).constant(),
                    "initializer \"" + use.op().input(use.input()).name() + "\", read by node "
                            + use.op().node().label() + ',');
        }
        return labels;
    }

    private double[] reduce(Dimension dimension, List<Slices> slices, Map<Tensor, AxisNorms> norms) {
        double[] scores = new double[dimension.size()];
        for (Slices member : slices) {
            double[] sums = norms.get(member.tensor).along(member.axis);
            int[] unitOf = Units.ofIndices(member.dim, dimension.atom(), sums.length);
            double[] own = new double[scores.length];
            for (int index = 0; index < sums.length; index++) {
                if (unitOf[index] >= 0) {
                    own[unitOf[index]] += sums[index];
                }
            }
            for (int unit = 0; unit < scores.length; unit++) {
                scores[unit] =
                        reduction == Reduction.MAX ? Math.max(scores[unit], own[unit]) : scores[unit] + own[unit];
            }
        }
        if (reduction == Reduction.MEAN && !slices.isEmpty()) {
            for (int unit = 0; unit < scores.length; unit++) {
                scores[unit] /= slices.size();
            }
        }
        return scores;
    }

    private double reduce(Set<Tensor> weights, Map<Tensor, AxisNorms> norms) {
        double[] totals = weights.stream()
                .mapToDouble(tensor -> norms.get(tensor).total())
                .sorted()
                .toArray();
        return switch (reduction) {
            case SUM -> Arrays.stream(totals).sum();
            case MEAN -> Arrays.stream(totals).average().orElse(0);
            case MAX -> Arrays.stream(totals).max().orElse(0);
        };
    }
}
