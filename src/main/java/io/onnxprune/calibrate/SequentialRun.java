package io.onnxprune.calibrate;

import io.onnxprune.diag.Log;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.Widening;
import io.onnxprune.runtime.HostTensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * Runs a model piece by piece, and lets weights of a piece be changed once the statistics of what its products read are
 * known: later pieces see what earlier ones became. A piece is the smallest part between two values of the residual
 * stream, whatever the memory; that only sizes batches.
 */
public final class SequentialRun implements AutoCloseable {
    /** Decides which products matter, and what becomes of them. */
    public interface Editor {
        /** Whether statistics of the input of this product are wanted. */
        boolean wants(Linear linear);

        /**
         * Takes the statistics of one input and gives new contents, of the same shape and element type, for initializers
         * by name. They hold for the rest of this piece and for all that come later.
         *
         * @param sharing the wanted products that read this input
         */
        Map<String, Tensor> edit(List<Linear> sharing, InputStatistics statistics);
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
            Map<Linear, String> obstacles) {}

    /**
     * An input that wanted products of one piece share.
     *
     * @param obstacles why the error at the end of the piece says nothing about a product
     * @param stream the value at the end of the piece; null if errors are not measured
     */
    private record Group(Activation input, List<Linear> linears, Map<Linear, String> obstacles, Activation stream) {
        List<Tap> taps() {
            List<Tap> taps = new ArrayList<>(
                    List.of(new Tap.SecondMoment(input), new Tap.Total(input), new Tap.Positions(input)));
            if (stream != null) {
                taps.add(new Tap.ErrorMoment(input, stream));
                taps.add(new Tap.TotalError(stream));
            }
            return taps;
        }
    }

    private final Editor editor;
    private final PieceWalk model;
    /** Null without a reference. */
    private final PieceWalk reference;

    private final int[] kept;
    private final List<List<Group>> groups = new ArrayList<>();

    private SequentialRun(Calibrator model, Reference reference, Editor editor) {
        this.editor = editor;
        this.model = new PieceWalk(model);
        this.reference = reference == null ? null : new PieceWalk(reference.calibrator());
        this.kept = reference == null ? null : reference.kept();
        Map<Op, Linear> linears = Linears.byOp(this.model.flow());
        for (int piece = 0; piece < this.model.pieces().size(); piece++) {
            groups.add(groups(piece, linears));
        }
        while (!groups.isEmpty() && groups.get(groups.size() - 1).isEmpty()) {
            groups.remove(groups.size() - 1);
        }
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
            if (!run.groups.isEmpty()) {
                run.all(rows);
            }
        }
    }

    /** The inputs of wanted products in a piece, in order of execution. */
    private List<Group> groups(int piece, Map<Op, Linear> linears) {
        Map<Activation, Map<Linear, Op>> sharing = new LinkedHashMap<>();
        for (Op op : model.pieces().get(piece).ops()) {
            Linear linear = linears.get(op);
            if (linear != null && editor.wants(linear)) {
                sharing.computeIfAbsent(linear.input(), key -> new LinkedHashMap<>())
                        .put(linear, op);
            }
        }
        List<Group> here = new ArrayList<>();
        sharing.forEach((input, products) -> {
            Map<Linear, String> obstacles = new LinkedHashMap<>();
            products.forEach((linear, op) -> {
                String obstacle = reference == null ? null : obstacle(piece, op);
                if (obstacle != null) {
                    obstacles.put(linear, obstacle);
                }
            });
            boolean measured = reference != null && obstacles.size() < products.size();
            Activation stream =
                    measured ? new Activation(model.pieces().get(piece).output().name(), model.width(piece)) : null;
            here.add(new Group(input, List.copyOf(products.keySet()), obstacles, stream));
        });
        return here;
    }

    private String obstacle(int piece, Op product) {
        if (piece == model.pieces().size() - 1) {
            return "no residual stream comes after it";
        }
        int theirs = counterpart(piece);
        if (theirs < 0) {
            return "the reference has no value like \""
                    + model.pieces().get(piece).output().name() + "\"";
        }
        int width =
                kept != null && reference.width(theirs) != model.width(piece) ? kept.length : reference.width(theirs);
        if (width != model.width(piece)) {
            return "the residual stream of the reference is %d wide where it adds to one of %d"
                    .formatted(width, model.width(piece));
        }
        return AdditionPath.obstacle(
                product, model.pieces().get(piece), model.flow().trace());
    }

    /** The piece of the reference that ends where {@code piece} of the model does, or -1. */
    private int counterpart(int piece) {
        if (reference.calibrator() == model.calibrator()) {
            return piece;
        }
        String key = model.key(piece);
        for (int theirs = 0; key != null && theirs < reference.pieces().size() - 1; theirs++) {
            if (key.equals(reference.key(theirs))) {
                return theirs;
            }
        }
        return -1;
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
        try (Log.Progress progress = model.calibrator().log().progress("calibration", tokens * runs())) {
            for (int piece = 0; piece < groups.size(); piece++) {
                List<Group> here = groups.get(piece);
                if (reference != null) {
                    here.forEach(group -> edit(List.of(group), progress));
                } else if (!here.isEmpty()) {
                    edit(here, progress);
                }
                if (piece < groups.size() - 1) {
                    model.advance(progress);
                }
            }
        }
    }

    /** The division of both models into batches, announced. */
    private CalibrationPlan plan(int samples) {
        List<Tap> taps = groups.stream()
                .flatMap(List::stream)
                .flatMap(group -> group.taps().stream())
                .distinct()
                .toList();
        CalibrationPlan plan = model.plan(taps, samples);
        double passes = (double) modelRuns() / model.pieces().size();
        if (reference != null) {
            plan = plan.beside(reference.plan(List.of(), samples));
            passes += (double) referenceRuns() / reference.pieces().size();
        }
        Calibrator calibrator = model.calibrator();
        plan.announce(
                calibrator.log(),
                samples,
                calibrator.length(),
                calibrator.options().memory(),
                String.format(Locale.ROOT, " in %.1f forward passes", passes));
        return plan;
    }

    private int runs() {
        return modelRuns() + referenceRuns();
    }

    private int modelRuns() {
        int captures = groups.stream()
                .mapToInt(here -> reference == null ? Math.min(1, here.size()) : here.size())
                .sum();
        return captures + groups.size() - 1;
    }

    private int referenceRuns() {
        for (int piece = groups.size() - 1; reference != null && piece >= 0; piece--) {
            if (groups.get(piece).stream().anyMatch(group -> group.stream != null)) {
                return counterpart(piece) + 1;
            }
        }
        return 0;
    }

    private void edit(List<Group> here, Log.Progress progress) {
        List<Tap> taps = here.stream().flatMap(group -> group.taps().stream()).toList();
        Counterpart counterpart = null;
        if (here.stream().anyMatch(group -> group.stream != null)) {
            counterpart = meet(progress);
        }
        model.capture(taps, counterpart, progress);
        here.forEach(this::edit);
    }

    /** Brings the reference to the end of the model's piece. */
    private Counterpart meet(Log.Progress progress) {
        int theirs = counterpart(model.done());
        while (reference.done() <= theirs) {
            reference.advance(progress);
        }
        boolean whole = reference.width(theirs) == model.width(model.done());
        Value value = reference.pieces().get(theirs).output();
        return new Counterpart(reference.flow().trace().dtype(value), whole ? null : kept, reference::value);
    }

    private void edit(Group group) {
        Map<Tap, HostTensor> sums = model.runner().sums();
        InputStatistics statistics = new InputStatistics(
                (long) sums.remove(new Tap.Positions(group.input)).asFloats().get(0),
                sums.remove(new Tap.SecondMoment(group.input)),
                sums.remove(new Tap.Total(group.input)),
                sums.remove(new Tap.ErrorMoment(group.input, group.stream)),
                sums.remove(new Tap.TotalError(group.stream)),
                group.obstacles);
        Map<String, Tensor> edited = editor.edit(group.linears, statistics);
        edited.forEach((name, tensor) -> model.runner().replace(name, inFormOf(name, tensor)));
    }

    /** Small half constants are float32 in the lowered model. */
    private Tensor inFormOf(String name, Tensor tensor) {
        Value present = model.calibrator().program().initializers().get(name);
        Tensor widened =
                present == null || present.constant().dtype() == tensor.dtype() ? tensor : Widening.widen(tensor);
        if (present == null
                || present.constant().dtype() != widened.dtype()
                || !Arrays.equals(present.constant().shape(), tensor.shape())) {
            throw new IllegalArgumentException("the model has "
                    + (present == null ? "no initializer" : present.constant() + " where " + tensor + " is given for")
                    + " \"" + name + '"');
        }
        return widened;
    }

    @Override
    public void close() {
        model.close();
        if (reference != null) {
            reference.close();
        }
    }
}
