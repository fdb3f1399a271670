// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

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
 * Runs a model piece by piece, and lets weights of a piece be changed once the statistics of what its products read are
 * known: later pieces see what earlier ones became. A piece is the smallest part between two values of the residual
 * stream, whatever the memory; that only sizes batches.
 */
public final class SequentialRun implements AutoCloseable {
    /** Decides which products matter, and what becomes of them. */
    public interface Editor {
        /** Whether statistics of the input of this product are wanted. */
        boolean wants(LoweredLinear linear);

        /**
         * Takes the statistics of one input and gives new contents, of the same shape and element type, for initializers
         * by name. They hold for the rest of this piece and for all that come later.
         *
         * @param sharing the wanted products that read this input
         */
        Map<String, Tensor> edit(List<LoweredLinear> sharing, InputStatistics statistics);
    }

    /**
     * The model that errors are measured against: another form of the same original, such as the one before any change.
     * Values at the ends of pieces are paired by name, so it may have blocks that the model lacks.
     *
     * @param calibrator for rows of the same length; may be the same one, which then stands for its weights before any edit
     * @param kept the channels of its residual stream that the model still has, in the model's order; null for all
     */
    @SuppressWarnings("ArrayRecordComponent") // never compared
    public record Reference(Calibrator calibrator, int[] kept) {}

    /**
     * What is known of the input X {@code [positions, n]} of a product over all rows of tokens. The tensors are the
     * editor's to keep.
     *
     * <p>With a reference E {@code [positions, width]} is the reference's value at the end of the piece minus the model's,
     * as the model's weights are by now. Where a product's result is only added to that value, ΔW changes E by −XΔW.
     *
     * @param positions how many there are; fewer than tokens where an expert sees only some of them
     * @param secondMoment XᵀX, {@code [n, n]}
     * @param total Σx, {@code [n]}
     * @param error XᵀE, {@code [n, width]}; null without a reference, or when no product of this input has a use for it
     * @param totalError ΣE, {@code [width]}; null when {@code error} is
     * @param obstacles why E says nothing about a product, a clause about it; empty without a reference
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
    private final List<PieceSchedule> visits;

    private SequentialRun(Calibrator model, Reference reference, Editor editor) {
        if (reference != null && reference.calibrator().length() != model.length()) {
            throw new IllegalArgumentException("model and reference are prepared for rows of different lengths");
        }
        this.editor = editor;
        this.model = new PieceExecutor(model);
        this.reference = reference == null ? null : new PieceExecutor(reference.calibrator());
        this.kept = reference == null ? null : reference.kept();
        this.visits = new ArrayList<>(PieceSchedule.of(this.model, this.reference, kept, editor::wants));
    }

    /**
     * Runs {@code model} over {@code rows} as far as there are products that {@code editor} wants.
     *
     * @param reference another model that runs beside it, as far as errors are measured; null for none. With one, the
     *     inputs of a piece are measured one after another, each with the edits before it; without, all in one run
     * @param rows token ids, as many in each row as the calibrators were made for
     * @throws io.onnxprune.diag.UserException when a run fails or values do not fit disk
     * @throws IllegalArgumentException when the editor gives a tensor that no initializer of the model can become
     */
    public static void run(Calibrator model, Reference reference, List<long[]> rows, Editor editor) {
        try (SequentialRun run = new SequentialRun(model, reference, editor)) {
            if (!run.visits.isEmpty()) {
                run.all(rows);
            }
        }
    }

    private void all(List<long[]> rows) {
        CalibrationPlan plan = plan(rows.size());
        List<int[]> batches = plan.batches(rows.size());
        long budget = plan.boundaryBudget(model.calibrator().options().memory());
        model.begin(rows, batches, reference == null ? budget : budget / 2);
        if (reference != null) {
            reference.begin(rows, batches, budget / 2);
        }
        long tokens = (long) rows.size() * model.calibrator().length();
        try (WeightedProgress effort =
                new WeightedProgress(runs(), tokens, model.calibrator().log())) {
            for (PieceSchedule visit : visits) {
                for (List<InputGroup> groups : visit.captures()) {
                    capture(visit, groups, effort);
                }
                if (!isLast(visit)) {
                    model.advance(effort.next());
                }
            }
        }
    }

    private boolean isLast(PieceSchedule visit) {
        return visit.piece() == visits.size() - 1;
    }

    /** The division of both models into batches, announced. What is kept to save work must fit memory. */
    private CalibrationPlan plan(int samples) {
        Set<Tap> taps = new LinkedHashSet<>();
        visits.forEach(visit -> taps.addAll(visit.taps()));
        CalibrationPlan plan = model.plan(taps, samples);
        if (reference != null) {
            plan = plan.beside(reference.plan(List.of(), samples));
        }
        Calibrator calibrator = model.calibrator();
        long memory = calibrator.options().memory();
        long room = plan.boundaryBudget(memory) - plan.boundaryBytes();
        long most = 0;
        for (ListIterator<PieceSchedule> each = visits.listIterator(); each.hasNext(); ) {
            PieceSchedule visit = each.next();
            boolean again = visit.captures().size() > 1 || !isLast(visit);
            long bytes = visit.frontier() == null ? 0 : model.bytes(visit.frontier(), samples);
            if (again && bytes <= room) {
                most = Math.max(most, bytes);
            } else {
                each.set(visit.withoutFrontier());
            }
        }
        plan = plan.keeping(most);
        String work = String.format(Locale.ROOT, " in %.1f forward passes", WeightedProgress.total(runs()));
        plan.announce(calibrator.log(), samples, calibrator.length(), memory, work);
        return plan;
    }

    /** What each run costs, in order, as a share of a run of the whole model. */
    private List<Double> runs() {
        List<Double> runs = new ArrayList<>();
        double whole = Math.max(1, model.work());
        int theirs = 0;
        for (PieceSchedule visit : visits) {
            long again = visit.frontier() == null
                    ? model.work(visit.piece())
                    : model.work(visit.frontier().rest());
            long next = model.work(visit.piece());
            for (List<InputGroup> groups : visit.captures()) {
                boolean measured = groups.stream().anyMatch(InputGroup::isMeasured);
                for (; measured && theirs <= visit.theirs(); theirs++) {
                    runs.add(reference.work(theirs) / whole);
                }
                // Without errors nothing is run that comes after what is measured.
                long behind = !measured && visit.frontier() != null
                        ? model.work(visit.frontier().rest())
                        : 0;
                long sums = 0;
                for (InputGroup group : groups) {
                    long width = group.input().width();
                    sums += width
                            * (width + (group.isMeasured() ? group.stream().width() : 0));
                }
                runs.add((Math.max(0, next - behind) + sums) / whole);
                next = again;
            }
            if (!isLast(visit)) {
                runs.add(next / whole);
            }
        }
        return runs;
    }

    private void capture(PieceSchedule visit, List<InputGroup> groups, WeightedProgress effort) {
        List<Tap> taps = groups.stream().flatMap(group -> group.taps().stream()).toList();
        boolean measured = groups.stream().anyMatch(InputGroup::isMeasured);
        ReferenceActivation counterpart = measured ? meet(visit, effort) : null;
        model.capture(taps, counterpart, visit.frontier(), effort.next());
        groups.forEach(this::edit);
    }

    /** Brings the reference to the end of the model's piece. */
    private ReferenceActivation meet(PieceSchedule visit, WeightedProgress effort) {
        while (reference.done() <= visit.theirs()) {
            reference.advance(effort.next());
        }
        boolean whole = reference.width(visit.theirs()) == model.width(visit.piece());
        Value value = reference.pieces().get(visit.theirs()).output();
        return new ReferenceActivation(reference.flow().trace().dtype(value), whole ? null : kept, reference::value);
    }

    private void edit(InputGroup group) {
        Map<Tap, HostTensor> sums = model.runner().sums();
        InputStatistics statistics = new InputStatistics(
                (long) sums.remove(new Tap.Positions(group.input())).asFloats().get(0),
                sums.remove(new Tap.SecondMoment(group.input())),
                sums.remove(new Tap.Total(group.input())),
                sums.remove(new Tap.ErrorMoment(group.input(), group.stream())),
                sums.remove(new Tap.TotalError(group.stream())),
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
