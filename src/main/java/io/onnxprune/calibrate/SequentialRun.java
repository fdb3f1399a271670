package io.onnxprune.calibrate;

import io.onnxprune.calibrate.Partition.Piece;
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
     * What is known of the input X {@code [positions, n]} of a product over all rows of tokens. The tensors are the
     * editor's to keep.
     *
     * @param positions how many there are; fewer than tokens where an expert sees only some of them
     * @param secondMoment XᵀX, {@code [n, n]}
     * @param total Σx, {@code [n]}
     */
    public record InputStatistics(long positions, HostTensor secondMoment, HostTensor total) {}

    /** An input that wanted products of one piece share. */
    private record Group(Activation input, List<Linear> linears) {
        List<Tap> taps() {
            return List.of(new Tap.SecondMoment(input), new Tap.Total(input), new Tap.Positions(input));
        }
    }

    private final Editor editor;
    private final Log log;
    private final Map<String, Value> initializers;
    private final CalibrationPlan plan;
    private final List<Segment> segments;
    private final List<List<Group>> groups;
    private final int last;
    private final SegmentRunner runner;
    private final Batches batches;

    private SequentialRun(Calibrator model, List<long[]> rows, Editor editor) {
        this.editor = editor;
        this.log = model.log();
        this.initializers = model.program().initializers();
        DataFlow flow = model.flow(List.of());
        List<Piece> pieces = new Partition(flow, model.logits()).pieces();
        this.groups = groups(flow, pieces, editor);
        this.last = lastWanted(groups);
        List<Tap> taps = groups.stream()
                .flatMap(List::stream)
                .flatMap(group -> group.taps().stream())
                .toList();
        CalibrationOptions options = model.options();
        this.plan =
                CalibrationPlan.over(pieces, flow, model.tokens(), taps, rows.size(), model.length(), options.memory());
        this.segments = Segment.of(flow, pieces);
        this.batches = new Batches(flow, model.decoder(), rows, plan.batches(rows.size()));
        this.runner = new SegmentRunner(
                model.runtime(),
                flow,
                batches,
                new ActivationStore(plan.boundaryBudget(options.memory()), options.workFolder()));
    }

    /**
     * Runs {@code model} over {@code rows} as far as there are products that {@code editor} wants.
     *
     * @param rows token ids, as many in each row as the calibrator was made for
     * @throws io.onnxprune.diag.UserException when a run fails or values do not fit disk
     * @throws IllegalArgumentException when the editor gives a tensor that no initializer of the model can become
     */
    public static void run(Calibrator model, List<long[]> rows, Editor editor) {
        try (SequentialRun run = new SequentialRun(model, rows, editor)) {
            if (run.last >= 0) {
                run.announce(model.options().memory());
                run.all();
            }
        }
    }

    /** The inputs of wanted products by piece, in order of execution. */
    private static List<List<Group>> groups(DataFlow flow, List<Piece> pieces, Editor editor) {
        Map<Op, Linear> linears = Linears.byOp(flow);
        List<List<Group>> groups = new ArrayList<>();
        for (Piece piece : pieces) {
            Map<Activation, List<Linear>> sharing = new LinkedHashMap<>();
            for (Op op : piece.ops()) {
                Linear linear = linears.get(op);
                if (linear != null && editor.wants(linear)) {
                    sharing.computeIfAbsent(linear.input(), key -> new ArrayList<>())
                            .add(linear);
                }
            }
            List<Group> here = new ArrayList<>();
            sharing.forEach((input, products) -> here.add(new Group(input, List.copyOf(products))));
            groups.add(here);
        }
        return groups;
    }

    private static int lastWanted(List<List<Group>> groups) {
        int last = groups.size() - 1;
        while (last >= 0 && groups.get(last).isEmpty()) {
            last--;
        }
        return last;
    }

    private long runs() {
        return last + groups.stream().filter(here -> !here.isEmpty()).count();
    }

    private void announce(long memory) {
        plan.announce(
                log,
                batches.rowCount(),
                (int) (batches.tokens() / batches.rowCount()),
                memory,
                String.format(Locale.ROOT, " in %.1f forward passes", (double) runs() / segments.size()));
    }

    private void all() {
        try (Log.Progress progress = log.progress("calibration", batches.tokens() * runs())) {
            for (int index = 0; index <= last; index++) {
                Segment segment = segments.get(index);
                List<Group> here = groups.get(index);
                if (!here.isEmpty()) {
                    List<Tap> taps = here.stream()
                            .flatMap(group -> group.taps().stream())
                            .toList();
                    runner.forward(segment, taps, false, true, progress);
                    here.forEach(this::edit);
                }
                if (index < last) {
                    runner.forward(segment, List.of(), true, false, progress);
                }
            }
        }
    }

    private void edit(Group group) {
        Map<Tap, HostTensor> sums = runner.sums();
        InputStatistics statistics = new InputStatistics(
                (long) sums.remove(new Tap.Positions(group.input)).asFloats().get(0),
                sums.remove(new Tap.SecondMoment(group.input)),
                sums.remove(new Tap.Total(group.input)));
        Map<String, Tensor> edited = editor.edit(group.linears, statistics);
        edited.forEach((name, tensor) -> runner.replace(name, inFormOf(name, tensor)));
    }

    /** Small half constants are float32 in the lowered model. */
    private Tensor inFormOf(String name, Tensor tensor) {
        Value present = initializers.get(name);
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
        runner.close();
    }
}
