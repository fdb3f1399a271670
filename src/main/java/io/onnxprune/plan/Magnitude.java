// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.Comparator;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/**
 * Magnitude scores: Σ|w|ᵖ over the slice of a unit in each member, reduced over the members (the baseline of
 * LLM-Pruner, arXiv 2305.11627). Weights are streamed from their file. Each tensor is read once for all of its
 * dimensions.
 */
public final class Magnitude implements Importance {
    /** The norm of a slice. */
    public enum Norm {
        /** Σ|w|. */
        L1,
        /** Σw². */
        L2
    }

    private final Norm norm;
    private final Reduction reduction;
    private final int threads;

    /** Creates magnitude scores. The scores do not depend on the number of threads, which work on different tensors. */
    public Magnitude(Norm norm, Reduction reduction, int threads) {
        this.norm = norm;
        this.reduction = reduction;
        this.threads = threads;
    }

    @Override
    public Scores score(Structure structure, Log log) {
        WeightMembers members = new WeightMembers(structure, dimension -> true, WeightMembers.Integers.AT_LAST, log);
        return members.scores(measure(members, log), reduction);
    }

    private Map<Tensor, AxisSums> measure(WeightMembers members, Log log) {
        Map<Tensor, BitSet> axes = members.axes();
        AxisSums.Terms terms = norm == Norm.L2 ? AxisSums.SQUARES : AxisSums.ABSOLUTES;
        List<Tensor> largestFirst = new ArrayList<>(axes.keySet());
        largestFirst.sort(
                Comparator.comparingLong((Tensor tensor) -> tensor.elements()).reversed());
        long total = largestFirst.stream().mapToLong(Tensor::elements).sum();
        Map<Tensor, AxisSums> norms = new HashMap<>();
        ExecutorService workers = Executors.newFixedThreadPool(Math.max(1, threads));
        try (Log.Progress progress = log.progress("measuring weights", total)) {
            Map<Tensor, Future<AxisSums>> running = new HashMap<>();
            for (Tensor tensor : largestFirst) {
                running.put(
                        tensor,
                        workers.submit(() -> new AxisSums(
                                tensor,
                                axes.get(tensor),
                                members.counted(tensor, terms),
                                members.label(tensor),
                                elements -> {
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

    private static AxisSums result(Future<AxisSums> future) {
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
}
