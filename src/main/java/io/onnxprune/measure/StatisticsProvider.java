// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Differentiability;
import io.onnxprune.calibrate.Divergence;
import io.onnxprune.calibrate.SequentialRun;
import io.onnxprune.calibrate.SequentialRun.Reference;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.calibrate.Statistics.Origin;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.Fingerprint;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.PassClock;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.ir.Model;
import io.onnxprune.plan.BlockInfluence;
import io.onnxprune.plan.ExpertImportance;
import io.onnxprune.plan.LayerInputs;
import io.onnxprune.plan.Taylor;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.runtime.OnnxRuntime;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Collection;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * Provides everything that is measured on calibration rows: second moments, gradients, inputs of linear layers,
 * similarities of the residual stream, and sequential runs. Second moments of one state are measured once and kept
 * until another state is measured. So passes on one state share them.
 */
public final class StatisticsProvider implements AutoCloseable {
    private static final String PASS = "statistics";

    /** Tokens of a row where only the graph matters. */
    private static final int FEW = 16;

    private final Setup setup;
    private final OnnxRuntime runtime;
    private final PassClock clock;
    /** The origin of the statistics to read; empty without a file. */
    private final Optional<Origin> given;

    private Log log;
    private List<long[]> rows = List.of();
    private List<long[]> setAside = List.of();
    private Optional<Measured> last = Optional.empty();
    private Optional<ModelInputs> inputs = Optional.empty();

    /** Second moments of a state. */
    private record Measured(PrunedState state, Statistics statistics) {
        boolean has(PrunedState other, Collection<Tap> taps) {
            return state == other && statistics.taps().containsAll(taps);
        }
    }

    /**
     * The statistics files of a run.
     *
     * @param in statistics of the dense model, used instead of measuring them
     * @param out file to keep measured statistics of the dense model in
     */
    public record Files(Optional<Path> in, Optional<Path> out) {
        /** No statistics file. */
        public static final Files NONE = new Files(Optional.empty(), Optional.empty());
    }

    /**
     * The settings of measurements.
     *
     * @param hash hash of the model's file
     * @param weights hashes of the files with weights outside it
     * @param files the statistics files
     * @param calibration the resources of calibration
     */
    public record Setup(String hash, List<String> weights, Files files, CalibrationOptions calibration) {}

    /**
     * Prepares measurements. Nothing is run before a pass needs it.
     *
     * @throws UserException if the statistics file is damaged or of another model
     */
    public StatisticsProvider(Setup setup, OnnxRuntime runtime, PassClock clock, Log log) {
        this.setup = setup;
        this.runtime = runtime;
        this.clock = clock;
        this.log = log;
        this.given = setup.files.in().map(this::origin);
    }

    private Origin origin(Path file) {
        Origin origin = Statistics.origin(file);
        if (!setup.hash.equalsIgnoreCase(origin.model())) {
            throw new UserException("the statistics %s are of another model (SHA-256 %s, not %s)"
                    .formatted(file, origin.model(), setup.hash));
        }
        return origin;
    }

    /**
     * Sets the rows of tokens to measure on, all of equal length.
     *
     * @param share of the rows, the last ones, that nothing is solved for, because a pass compares models on them
     * @throws UserException if their length differs from that of the statistics file
     */
    public void measureOn(List<long[]> tokens, double share) {
        int aside = share == 0 ? 0 : Math.min(tokens.size() - 1, (int) Math.ceil(share * tokens.size()));
        rows = tokens.subList(0, tokens.size() - Math.max(0, aside));
        setAside = tokens.subList(rows.size(), tokens.size());
        given.filter(origin -> !rows.isEmpty() && rows.get(0).length != origin.length())
                .ifPresent(origin -> {
                    throw new UserException(
                            "the statistics %s are of rows of %d tokens, but this run calibrates on rows of %d; add --seq-len %d"
                                    .formatted(
                                            setup.files.in().orElseThrow(),
                                            origin.length(),
                                            rows.get(0).length,
                                            origin.length()));
                });
    }

    /** Moves information about runs to the debug level, because later steps repeat that of the first one. */
    public void quiet() {
        log = log.quiet();
    }

    /**
     * The calibration rows, token ids.
     *
     * @throws UserException if the run has none
     */
    public List<long[]> rows() {
        if (rows.isEmpty()) {
            throw new UserException(
                    "--stats holds only the statistics of the first pass, but another pass needs more; add --calibration");
        }
        return rows;
    }

    /**
     * The rows that nothing is solved for.
     *
     * @throws UserException if the run has none
     */
    public List<long[]> rowsSetAside() {
        if (setAside.isEmpty()) {
            throw new UserException("models are compared on rows that nothing is solved for, but there are only "
                    + rows.size() + " calibration rows in all; give at least two (--samples)");
        }
        return setAside;
    }

    /**
     * The mean divergence of a pruned model from the dense one on the rows that nothing is solved for, in nats a token.
     *
     * @throws UserException if the run has no such rows
     */
    public double divergenceAside(PrunedState pruned) {
        Calibrator model = calibrator(pruned.model());
        try (Divergence divergence = Divergence.from(calibratorOfDense(pruned), model, rowsSetAside())) {
            return Arrays.stream(model.losses(divergence)).average().orElseThrow();
        }
    }

    private int length() {
        return given.map(Origin::length).orElseGet(() -> rows().get(0).length);
    }

    /**
     * Checks that the loss can be differentiated by the named initializers, before there are rows. Measured statistics
     * need no gradients.
     *
     * @throws UserException when an operator on the way has no derivative
     */
    public void requireGradients(Model model, Set<String> initializers) {
        if (given.isEmpty()) {
            Differentiability.require(model, initializers, runtime, setup.calibration);
        }
    }

    /**
     * Checks that contributions of experts can be measured, before there are rows. A model that cannot be prepared for
     * rows of a few tokens is not checked.
     *
     * @throws UserException if it is not known where the outputs of experts are added
     */
    public void requireContributions(PrunedState whole, List<Dimension> experts) {
        Calibrator calibrator;
        try {
            calibrator = Calibrator.of(whole.model(), runtime, setup.calibration, FEW, Log.NONE);
        } catch (UserException e) {
            return; // This is told for the rows of the run.
        }
        new ModelContributions(whole, List.of(), calibrator, this::calibrator)
                .taps(experts, ExpertImportance.Kind.OUTPUT);
    }

    /** A calibrator of a model for rows of the length of this run. */
    public Calibrator calibrator(Model model) {
        return Calibrator.of(model, runtime, setup.calibration, length(), log);
    }

    /** A calibrator of the dense model that a state was pruned from. */
    public Calibrator calibratorOfDense(PrunedState pruned) {
        return calibrator(pruned.structure().analysis().program().model());
    }

    /** The source of second moments of a state. */
    public Statistics.Source source(PrunedState measured) {
        return (model, taps) -> {
            if (model.hasOtherWeights()) {
                return clock.timed(PASS, () -> Statistics.measure(model, rows(), taps));
            }
            if (last.filter(found -> found.has(measured, taps)).isEmpty()) {
                Statistics next = clock.timed(PASS, () -> measure(measured, model, taps));
                close();
                last = Optional.of(new Measured(measured, next));
            }
            return last.orElseThrow().statistics.shared();
        };
    }

    private Statistics measure(PrunedState measured, Calibrator model, Collection<Tap> taps) {
        boolean first = last.isEmpty() && measured.isDense();
        if (first && given.isPresent()) {
            return given(given.get(), model, taps);
        }
        if (first && setup.files.out().isPresent()) {
            Path file = setup.files.out().get();
            Origin origin = new Origin(setup.hash, rows().size(), length(), fisher(taps));
            Statistics found = Statistics.measure(model, rows, taps, file, origin);
            log.info("statistics of %d x %d tokens are in %s".formatted(origin.rows(), origin.length(), file));
            return found;
        }
        return Statistics.measure(model, rows(), taps);
    }

    private Statistics given(Origin origin, Calibrator model, Collection<Tap> taps) {
        Path file = setup.files.in().orElseThrow();
        String fisher = fisher(taps);
        if (!fisher.equals(Origin.NONE) && !fisher.equals(origin.fisher())) {
            throw new UserException(
                    "the statistics %s have gradients of kind \"%s\", but the method needs \"%s\"; measure them again"
                            .formatted(file, origin.fisher(), fisher));
        }
        log.info("statistics of %d x %d tokens come from %s".formatted(origin.rows(), origin.length(), file));
        return Statistics.read(file, model, taps);
    }

    private String fisher(Collection<Tap> taps) {
        if (taps.stream().noneMatch(Tap::needsGradients)) {
            return Origin.NONE;
        }
        return setup.calibration.draws() > 0 ? Origin.TRUE : Origin.EMPIRICAL;
    }

    /**
     * Gradients of the loss by the weights of a state, in the shapes of the dense model.
     *
     * @param use identifies the use of the gradients, because a stopped run resumes with it
     */
    public Taylor.Gradients gradients(PrunedState pruned, List<?> use) {
        String key = Fingerprint.of(
                List.of(pruned.plan().model(), setup.weights, pruned.plan().describe(), use), List.of());
        return new SlicedGradients(
                new ModelGradients(pruned.model(), rows(), runtime, setup.calibration, key, log), pruned);
    }

    /**
     * Inputs of the linear layers of a state, in terms of the channels of the dense model. They are measured once for
     * each state.
     */
    public LayerInputs inputs(PrunedState pruned) {
        ModelInputs found = inputs.filter(known -> known.areOf(pruned))
                .orElseGet(() -> new ModelInputs(pruned, rows(), runtime, setup.calibration, log));
        inputs = Optional.of(found);
        return found;
    }

    /** Similarities of the residual stream before and after blocks of a state. */
    public BlockInfluence.Similarities similarities(PrunedState pruned) {
        return new ModelSimilarities(pruned, rows(), runtime, setup.calibration, log);
    }

    /** What the experts of a state contribute to the tokens that are routed to them. */
    public ExpertImportance.Contributions contributions(PrunedState pruned) {
        return new ModelContributions(pruned, rows(), calibrator(pruned.model()), this::calibrator);
    }

    /**
     * Runs the model of a state piece by piece with an editor that changes its weights.
     *
     * @param besideDense whether the dense model runs beside it, to measure errors against
     */
    public void sweep(PrunedState pruned, boolean besideDense, SequentialRun.Editor editor) {
        Reference reference = besideDense ? new Reference(calibratorOfDense(pruned), keptWidth(pruned)) : null;
        SequentialRun.run(calibrator(pruned.model()), reference, rows(), editor);
    }

    /** The channels of the residual stream that a state keeps; null for all, as {@link Reference} takes it. */
    private static int @Nullable [] keptWidth(PrunedState pruned) {
        Dim.Keep keep = pruned.plan().keep(pruned.structure());
        List<Dim.Atom> width = pruned.structure().stream().width();
        return width.size() == 1 ? keep.kept(width.get(0)) : null;
    }

    @Override
    public void close() {
        last.ifPresent(measured -> measured.statistics.close());
        last = Optional.empty();
    }
}
