// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.calibrate.ActivationStore.Budget;
import io.onnxprune.calibrate.PieceSchedule.InputGroup;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.runtime.HostTensor;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.ListIterator;
import java.util.Locale;
import java.util.Map;
import java.util.Set;

/**
 * Runs a model piece by piece. An editor may change weights of a piece once the statistics of the inputs of its linear
 * layers are known, so that later pieces see the changed earlier ones. A piece is the smallest part between two values
 * of the residual stream. The memory affects only the size of batches.
 */
public final class SequentialRun implements AutoCloseable {
    /** Selects linear layers and changes their weights. */
    public interface Editor {
        /** Whether the editor needs the statistics of the input of this layer. */
        boolean wants(LoweredLinear linear);

        /**
         * Receives the statistics of one input and returns new contents of initializers by name, of the same shape and
         * element type. They are used for the rest of this piece and all later pieces.
         *
         * @param linears the selected layers with this input
         */
        Map<String, Tensor> edit(List<LoweredLinear> linears, InputStatistics statistics);
    }

    /**
     * The model that errors are measured against. It is another form of the same dense model, such as the dense model
     * itself. The outputs of pieces are paired by name, so the reference may have blocks that the model does not have.
     *
     * @param calibrator a calibrator for rows of the same length. If it is the one of the model, the reference has
     *     the weights before any edit.
     * @param kept the channels of its residual stream that the model has, in the order of the model; null for all
     */
    @SuppressWarnings("ArrayRecordComponent") // never compared
    public record Reference(Calibrator calibrator, int[] kept) {}

    /**
     * The statistics of the input X {@code [positions, n]} of a linear layer over all rows of tokens. The editor may
     * keep the tensors.
     *
     * <p>With a reference, E {@code [positions, width]} is the output of the piece in the reference minus that in the
     * model, with all edits so far. Where the output of a layer is only added to this value, a change ΔW changes E by
     * −XΔW.
     *
     * @param positions number of positions; fewer than tokens where an expert gets only some of them
     * @param secondMoment XᵀX, {@code [n, n]}
     * @param total Σx, {@code [n]}
     * @param error XᵀE, {@code [n, width]}; null without a reference, or if E describes no layer of this input
     * @param totalError ΣE, {@code [width]}; null when {@code error} is
     * @param obstacles for layers that E does not describe, the reason, as a clause about the layer; empty without
     *     a reference
     */
    public record InputStatistics(
            long positions,
            HostTensor secondMoment,
            HostTensor total,
            HostTensor error,
            HostTensor totalError,
            Map<LoweredLinear, String> obstacles) {}

    private final Editor editor;
    private final PieceExecutor model;
    /** Null without a reference. */
    private final PieceExecutor reference;

    private final int[] kept;
    private final List<PieceSchedule> schedules;

    private SequentialRun(Calibrator model, Reference reference, Editor editor) {
        if (reference != null && reference.calibrator().length() != model.length()) {
            throw new IllegalArgumentException("model and reference are prepared for rows of different lengths");
        }
        this.editor = editor;
        this.model = new PieceExecutor(model);
        this.reference = reference == null ? null : new PieceExecutor(reference.calibrator());
        this.kept = reference == null ? null : reference.kept();
        this.schedules = new ArrayList<>(PieceSchedule.of(this.model, this.reference, kept, editor::wants));
    }

    /**
     * Runs {@code model} over {@code rows} up to the last layer that {@code editor} selects.
     *
     * @param reference another model that runs beside it, as far as errors are measured; null for none. With a
     *     reference, the inputs of a piece are measured one after another, each with the edits before it. Without one,
     *     they are measured in one run.
     * @param rows token ids, each row of the length that the calibrators were made for
     * @throws io.onnxprune.diag.UserException when a run fails or values do not fit on disk
     * @throws IllegalArgumentException when the editor returns a tensor that does not fit the initializer
     */
    public static void run(Calibrator model, Reference reference, List<long[]> rows, Editor editor) {
        try (SequentialRun run = new SequentialRun(model, reference, editor)) {
            if (!run.schedules.isEmpty()) {
                run.runAll(rows);
            }
        }
    }

    private void runAll(List<long[]> rows) {
        CalibrationPlan plan = plan(rows.size());
        List<int[]> batches = plan.batches(rows.size());
        long memory = model.calibrator().memory();
        Budget budget = model.calibrator().boundaryBudget(plan, memory);
        long weights = plan.weightBudget(memory);
        if (reference == null) {
            model.begin(rows, batches, budget, weights);
        } else {
            model.begin(rows, batches, budget.part(2), weights / 2);
            reference.begin(rows, batches, budget.part(2), weights / 2);
        }
        long tokens = (long) rows.size() * model.calibrator().length();
        try (WeightedProgress progress =
                new WeightedProgress(runs(), tokens, model.calibrator().log())) {
            for (PieceSchedule schedule : schedules) {
                for (List<InputGroup> groups : schedule.captures()) {
                    capture(schedule, groups, progress);
                }
                if (!isLast(schedule)) {
                    model.advance(progress.next());
                }
            }
        }
    }

    private boolean isLast(PieceSchedule schedule) {
        return schedule.piece() == schedules.size() - 1;
    }

    /**
     * Divides the runs of both models into batches, and logs the division. Boundaries are only stored if they fit into
     * memory.
     */
    private CalibrationPlan plan(int samples) {
        Set<Tap> taps = new LinkedHashSet<>();
        schedules.forEach(schedule -> taps.addAll(schedule.taps()));
        CalibrationPlan plan = model.plan(taps, samples);
        if (reference != null) {
            plan = plan.beside(reference.plan(List.of(), samples));
        }
        Calibrator calibrator = model.calibrator();
        long memory = calibrator.memory();
        long room = plan.boundaryBudget(memory) - plan.boundaryBytes();
        long most = 0;
        for (ListIterator<PieceSchedule> each = schedules.listIterator(); each.hasNext(); ) {
            PieceSchedule schedule = each.next();
            boolean repeated = schedule.captures().size() > 1 || !isLast(schedule);
            long bytes = schedule.boundary() == null ? 0 : model.bytes(schedule.boundary(), samples);
            if (repeated && bytes <= room) {
                most = Math.max(most, bytes);
            } else {
                each.set(schedule.withoutBoundary());
            }
        }
        plan = plan.keeping(most);
        String work = String.format(Locale.ROOT, " in %.1f forward passes", WeightedProgress.total(runs()));
        plan.announce(calibrator.log(), samples, calibrator.length(), memory, work);
        return plan;
    }

    /** The cost of each run, in order, relative to one run of the entire model. */
    private List<Double> runs() {
        List<Double> runs = new ArrayList<>();
        double all = Math.max(1, model.work());
        int referencePiece = 0;
        for (PieceSchedule schedule : schedules) {
            long recompute = schedule.boundary() == null
                    ? model.work(schedule.piece())
                    : model.work(schedule.boundary().rest());
            long next = model.work(schedule.piece());
            for (List<InputGroup> groups : schedule.captures()) {
                boolean measured = groups.stream().anyMatch(InputGroup::isMeasured);
                for (; measured && referencePiece <= schedule.referencePiece(); referencePiece++) {
                    runs.add(reference.work(referencePiece) / all);
                }
                // Without errors, nothing after the measured inputs is run.
                long behind = !measured && schedule.boundary() != null
                        ? model.work(schedule.boundary().rest())
                        : 0;
                long sums = 0;
                for (InputGroup group : groups) {
                    long width = group.input().width();
                    sums += width
                            * (width + (group.isMeasured() ? group.stream().width() : 0));
                }
                runs.add((Math.max(0, next - behind) + sums) / all);
                next = recompute;
            }
            if (!isLast(schedule)) {
                runs.add(next / all);
            }
        }
        return runs;
    }

    private void capture(PieceSchedule schedule, List<InputGroup> groups, WeightedProgress progress) {
        List<Tap> taps = groups.stream().flatMap(group -> group.taps().stream()).toList();
        boolean measured = groups.stream().anyMatch(InputGroup::isMeasured);
        ReferenceActivation expected = measured ? advanceReference(schedule, progress) : null;
        model.capture(taps, expected, schedule.boundary(), progress.next());
        groups.forEach(this::edit);
    }

    /** Runs the reference up to the end of the current piece of the model. */
    private ReferenceActivation advanceReference(PieceSchedule schedule, WeightedProgress progress) {
        while (reference.done() <= schedule.referencePiece()) {
            reference.advance(progress.next());
        }
        boolean sameWidth = reference.width(schedule.referencePiece()) == model.width(schedule.piece());
        Value value = reference.pieces().get(schedule.referencePiece()).output();
        return new ReferenceActivation(
                reference.flow().trace().dtype(value), sameWidth ? null : kept, reference::value);
    }

    private void edit(InputGroup group) {
        SegmentRunner sums = model.runner();
        InputStatistics statistics = new InputStatistics(
                (long) sums.takeSum(new Tap.Positions(group.input())).asFloats().get(0),
                sums.takeSum(new Tap.SecondMoment(group.input())),
                sums.takeSum(new Tap.Total(group.input())),
                sums.takeSum(new Tap.ErrorMoment(group.input(), group.stream())),
                sums.takeSum(new Tap.TotalError(group.stream())),
                group.obstacles());
        Map<String, Tensor> edited = editor.edit(group.linears(), statistics);
        edited.forEach((name, tensor) -> model.replace(name, model.calibrator().inFormOf(name, tensor)));
    }

    @Override
    public void close() {
        model.close();
        if (reference != null) {
            reference.close();
        }
    }
}
