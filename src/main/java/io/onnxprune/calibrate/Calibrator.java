// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.calibrate.ActivationStore.Budget;
import io.onnxprune.diag.Claim;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Trace;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.Widening;
import io.onnxprune.lower.Lowering;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;

/**
 * Measures statistics of a model over rows of tokens. The model is lowered to primitive operators and cut into segments
 * that are run one at a time, with gradient checkpointing between them (Chen et al., arXiv 1604.06174). So memory is
 * needed only for one segment and the values between segments, whatever the size of the model.
 */
public final class Calibrator {
    /** The least time between two checkpoints of a long run. A stopped run loses at most this time. */
    private static final double CHECKPOINT_SECONDS = 30;

    private final OnnxRuntime runtime;
    private final CalibrationOptions options;
    private final Log log;
    private final int length;
    private final Program program;
    private final Trace trace;
    private final ModelInterface graph;
    /** Replaced contents of initializers of the lowered model, by name. */
    private final Map<String, Tensor> weights;

    /**
     * The result of a run.
     *
     * @param loss mean next-token cross-entropy of each row; empty when no gradients were needed
     * @param tokens number of tokens that were run through the model
     */
    @SuppressWarnings("ArrayRecordComponent") // bulk data, never compared
    public record Summary(double[] loss, long tokens) {}

    private Calibrator(Model lowered, OnnxRuntime runtime, CalibrationOptions options, int length, Log log) {
        this.runtime = runtime;
        this.options = options;
        this.log = log;
        this.length = length;
        this.program = Program.of(lowered);
        this.trace = Trace.of(program, runtime, log);
        this.graph = ModelInterface.of(lowered.graph()).with(options.sides());
        this.weights = Map.of();
    }

    private Calibrator(Calibrator other, Map<String, Tensor> weights) {
        this.runtime = other.runtime;
        this.options = other.options;
        this.log = other.log;
        this.length = other.length;
        this.program = other.program;
        this.trace = other.trace;
        this.graph = other.graph;
        this.weights = weights;
    }

    /**
     * Prepares calibration on rows of {@code length} tokens.
     *
     * @throws UserException when the model cannot be lowered, or yields logits only for its last position
     */
    public static Calibrator of(Model model, OnnxRuntime runtime, CalibrationOptions options, int length, Log log) {
        Calibrator calibrator =
                new Calibrator(Lowering.lower(model, runtime, length, log), runtime, options, length, log);
        calibrator.requireAllLogits();
        return calibrator;
    }

    private void requireAllLogits() {
        long[] given = trace.shape(end(), 1);
        long positions = trace.shape(rowsInput(), 1)[1];
        if (graph.logits().isPresent() && (given.length != 3 || given[1] != positions)) {
            throw new UserException("the model yields logits for " + (given.length == 3 ? given[1] : 1) + " of "
                    + positions
                    + " positions, so it has no loss to calibrate on; export it with logits for all positions");
        }
    }

    /**
     * A calibrator for the same model with replaced contents of some initializers. The model is not prepared again.
     * Only the first calibrator logs the division of a run.
     *
     * @param contents by name, each with the shape and element type of the initializer; other initializers are as
     *     in this calibrator
     * @throws IllegalArgumentException when the model has no such initializer
     */
    public Calibrator withWeights(Map<String, Tensor> contents) {
        Map<String, Tensor> changed = new HashMap<>(weights);
        contents.forEach((name, tensor) -> changed.put(name, inFormOf(name, tensor)));
        return new Calibrator(this, changed);
    }

    /**
     * Converts new contents for an initializer to the element type of the lowered model, where small half-precision
     * constants are float32.
     *
     * @throws IllegalArgumentException when the contents do not fit any initializer of the model
     */
    Tensor inFormOf(String name, Tensor tensor) {
        Value present = program.initializers().get(name);
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

    /** Whether this calibrator was made by {@link #withWeights}. */
    public boolean hasOtherWeights() {
        return !weights.isEmpty();
    }

    /** The lowered model, which is run. */
    public Model lowered() {
        return program.model();
    }

    Map<String, Tensor> weights() {
        return weights;
    }

    Program program() {
        return program;
    }

    Trace trace() {
        return trace;
    }

    OnnxRuntime runtime() {
        return runtime;
    }

    CalibrationOptions options() {
        return options;
    }

    Log log() {
        return log;
    }

    int length() {
        return length;
    }

    /** The roles of the model's inputs and outputs. */
    ModelInterface graph() {
        return graph;
    }

    /**
     * Checks that there is a loss of next tokens.
     *
     * @throws UserException when the model has no vocabulary, or rows are of embeddings
     */
    public void requireNextTokens() {
        graph.requireLogits();
        if (!graph.knowsTokens()) {
            throw new UserException("the rows are embeddings of unknown tokens, so there is no loss of next tokens;"
                    + " give rows of tokens, and the model that embeds them with --embeddings");
        }
    }

    /** The input that takes the rows. */
    Value rowsInput() {
        return program.input(graph.requireRows().name());
    }

    Value end() {
        return program.output(graph.end().name());
    }

    /** The linear layers of the lowered model, in order of execution. */
    public List<LoweredLinear> linears() {
        return LoweredLinears.of(flow(List.of()));
    }

    /**
     * The weighted outputs of experts in the lowered model.
     *
     * @param weights the weights of experts, by the name of the initializer
     */
    public List<ExpertOutput> expertOutputs(Map<String, ExpertWeight> weights) {
        return ExpertOutputs.of(flow(List.of()), weights);
    }

    /**
     * The names of the initializers that may have gradients. They hold floating-point numbers, or integers that are
     * cast to floating-point numbers.
     */
    public Set<String> parameters() {
        Set<String> names = new LinkedHashSet<>();
        program.initializers().forEach((name, value) -> {
            if (value.constant().dtype().isFloat() || isCastOnly(value)) {
                names.add(name);
            }
        });
        return names;
    }

    private boolean isCastOnly(Value value) {
        return !value.uses().isEmpty()
                && value.uses().stream()
                        .allMatch(use -> use.op().node().is("Cast")
                                && trace.dtype(use.op().output(0)).isFloat());
    }

    /**
     * Runs the model over {@code rows} and passes each statistic to {@code sink} when it is complete. A statistic that
     * no gradient reaches is passed as zeros.
     *
     * @param rows token ids, each row of the length that the calibrator was made for
     * @param taps the statistics
     * @param sink receives the sums in order of execution, or in reverse order if gradients are needed
     * @throws UserException when an operator has no derivative, the loss is not finite, or a run fails
     */
    public Summary gather(List<long[]> rows, Collection<Tap> taps, TapSink sink) {
        boolean backward = taps.stream().anyMatch(Tap::needsGradients);
        return gather(Objective.NextToken.drawn(rows, backward ? options.draws() : 0), taps, sink);
    }

    /**
     * Runs the model over the rows of {@code objective} and passes each statistic to {@code sink} when it is complete.
     * Gradients are those of {@code objective}, whose loss of row n is the L_n of {@link Tap}.
     *
     * @param taps the statistics
     * @param sink receives the sums in order of execution, or in reverse order if gradients are needed
     * @throws UserException when an operator has no derivative, the loss is not finite, or a run fails
     */
    public Summary gather(Objective objective, Collection<Tap> taps, TapSink sink) {
        return gatherSums(objective, taps, SumSink.of(sink));
    }

    private Summary gatherSums(Objective objective, Collection<Tap> taps, SumSink sink) {
        boolean backward = taps.stream().anyMatch(Tap::needsGradients);
        return RunMemory.smallerIfNeeded(
                this,
                objective,
                taps,
                sink,
                (run, left, target) ->
                        backward ? run.backward(left, target, null, state -> {}) : run.forward(left, target));
    }

    /**
     * Runs the model over {@code rows} and passes the gradient of each initializer to {@code sink} when it is complete.
     *
     * @param initializers names out of {@link #parameters}; an initializer that no gradient reaches gets zeros
     * @param squares whether sums of squared gradients of single rows are needed too
     * @throws UserException when an operator has no derivative, the loss is not finite, or a run fails
     */
    public Summary gradients(List<long[]> rows, Collection<String> initializers, boolean squares, GradientSink sink) {
        try (GradientReduction reduction = new GradientReduction(runtime, lowered())) {
            Objective objective = Objective.NextToken.drawn(rows, options.draws());
            return gatherSums(
                    objective, GradientTaps.of(initializers, squares), GradientTaps.sink(sink, squares, reduction));
        }
    }

    /**
     * Computes gradients like {@link #gradients(List, Collection, boolean, GradientSink)}, with checkpoints in the work
     * folder. If the options say so, it resumes a stopped run with the same key.
     *
     * @param key identifies the model and the rows
     * @throws UserException when an operator has no derivative, the loss is not finite, a run fails, or the
     *     checkpoint cannot be written or read
     */
    public Summary gradients(
            List<long[]> rows, Collection<String> initializers, boolean squares, ResumableSink sink, String key) {
        return gradients(rows, initializers, squares, sink, key, CHECKPOINT_SECONDS);
    }

    Summary gradients(
            List<long[]> rows,
            Collection<String> initializers,
            boolean squares,
            ResumableSink sink,
            String key,
            double checkpointSeconds) {
        List<Tap> taps = GradientTaps.of(initializers, squares);
        try (GradientReduction reduction = new GradientReduction(runtime, lowered())) {
            SumSink reduced = GradientTaps.sink(sink, squares, reduction);
            Objective objective = new Objective.NextToken(rows);
            return RunMemory.smallerIfNeeded(this, objective, taps, reduced, (run, left, target) -> {
                String precision = runtime.options().precision().title();
                int form = Objects.hash(run.shape(), new HashSet<>(initializers), squares, precision);
                try (Claim claim = checkpoint(key + '-' + Integer.toHexString(form))) {
                    Checkpoint checkpoint = new Checkpoint(checkpointFile(claim.name()), checkpointSeconds);
                    Checkpoint.State saved =
                            options.resume() ? checkpoint.resumed(sink, run.segmentCount(), log) : null;
                    Summary summary = run.backward(left, target, saved, state -> {
                        if (checkpoint.isDue() && run.canStop()) {
                            checkpoint.save(state, sink);
                        }
                    });
                    checkpoint.remove();
                    return summary;
                }
            });
        }
    }

    private Claim checkpoint(String key) {
        return Claim.of(
                options.workFolder(),
                "gradients",
                key,
                name -> !options.resume() || Files.exists(checkpointFile(name)));
    }

    private Path checkpointFile(String name) {
        return options.workFolder().resolve(name + ".safetensors");
    }

    /** The shape of the sum of a tap. */
    long[] shape(Tap tap) {
        return tap instanceof Tap.Gradient || tap instanceof Tap.SquaredGradient
                ? program.initializers().get(tap.subject()).constant().shape()
                : SumShapes.of(tap);
    }

    /** The data flow of the model, with the parameters whose gradients these taps need. */
    DataFlow flow(Collection<Tap> taps) {
        Set<Value> parameters = new HashSet<>();
        for (Tap tap : taps) {
            Value parameter = program.initializers().get(tap.subject());
            if (tap.needsGradients() && parameter != null) {
                parameters.add(parameter);
            }
        }
        Set<Value> contents = new HashSet<>();
        graph.contentInputs().forEach(name -> contents.add(program.input(name)));
        return new DataFlow(program, trace, contents, end(), parameters);
    }

    /**
     * Computes the loss of each row of an objective. A loss may be infinite or not a number.
     *
     * @throws UserException when a run fails
     */
    public double[] losses(Objective objective) {
        try (CalibrationRun run = begin(objective, List.of(), memory())) {
            return run.losses();
        }
    }

    /** Bytes that a run may use in the memory that sessions work in. */
    long memory() {
        return RunMemory.limit(runtime, options);
    }

    /** The bytes that values between segments may take, of {@code memory} bytes where sessions work. */
    Budget boundaryBudget(CalibrationPlan plan, long memory) {
        return RunMemory.boundaries(runtime, options, plan.boundaryBudget(memory));
    }

    /** The workload of a run over {@code samples} rows, with {@code memory} bytes. */
    CalibrationPlan.Workload workload(DataFlow flow, int samples, long memory) {
        return new CalibrationPlan.Workload(
                flow, rowsInput(), end(), samples, length, memory, RunMemory.batchTokens(runtime));
    }

    /** The division of a run that yields the gradients of all linear layers. */
    CalibrationPlan planOfGradients(int samples) {
        Set<Tap> taps = new LinkedHashSet<>();
        for (LoweredLinear linear : linears()) {
            if (parameters().contains(linear.weight())) {
                taps.add(new Tap.Gradient(linear.weight()));
            }
        }
        DataFlow flow = flow(taps);
        return CalibrationPlan.over(new Partition(flow, end()).pieces(), workload(flow, samples, memory()), taps);
    }

    /** Prepares a run within {@code limit} bytes of the memory that sessions work in. */
    CalibrationRun begin(Objective objective, Collection<Tap> taps, long limit) {
        if (taps.stream().anyMatch(Tap::needsGradients)) {
            runtime.options().precision().requireGradients("this method");
        }
        List<long[]> rows = objective.rows();
        boolean single = taps.stream().anyMatch(Tap.SquaredGradient.class::isInstance);
        if (taps.stream().anyMatch(tap -> tap instanceof Tap.ErrorMoment || tap instanceof Tap.TotalError)) {
            throw new IllegalArgumentException(
                    "errors are measured against a reference, which only a SequentialRun has");
        }
        DataFlow flow = flow(taps);
        long memory = Math.max(1, limit - objective.heldBytes());
        CalibrationPlan.Workload workload = workload(flow, rows.size(), memory);
        CalibrationPlan divided = CalibrationPlan.of(workload, taps, objective, single);
        List<Segment> segments = Segment.of(flow, divided.pieces());
        for (Tap tap : taps) {
            requireFound(tap.subject(), segments);
            if (tap instanceof Tap.Similarity similarity) {
                requireFound(similarity.from().value(), segments);
            }
        }
        LiveValues liveValues = LiveValues.of(segments, taps);
        CalibrationPlan plan = divided.keeping(liveValues.bytes(new Footprint(flow, rowsInput()), rows.size(), length));
        if (!taps.isEmpty() && weights.isEmpty()) {
            plan.announce(log, rows.size(), length, memory);
        }
        List<int[]> division = objective.batches() == null ? plan.batches(rows.size()) : objective.batches();
        Batches batches = new Batches(flow, graph, rows, division);
        ActivationStore boundaries = new ActivationStore(boundaryBudget(plan, memory), options.workFolder());
        SegmentRunner runner =
                new SegmentRunner(runtime, flow, batches, boundaries, weights, plan.weightBudget(memory));
        return new CalibrationRun(
                this,
                objective,
                segments,
                liveValues,
                runner,
                () -> divided.isSmallest(workload, objective.batches() != null));
    }

    private static void requireFound(String name, List<Segment> segments) {
        if (segments.stream().noneMatch(segment -> segment.find(name) != null)) {
            throw new UserException("\"" + name
                    + "\" is not computed between the tokens and the logits, so there are no statistics of it");
        }
    }
}
