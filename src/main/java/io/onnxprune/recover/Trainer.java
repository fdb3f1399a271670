// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.diag.Log;
import io.onnxprune.eval.Example;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.Widening;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import io.onnxprune.runtime.TrainingSession;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Random;
import java.util.stream.IntStream;

/** Trains the parameters of a model on rows of tokens with ONNX Runtime's training API. */
final class Trainer implements AutoCloseable {
    /** Ratio of the held-out loss to the initial one above which training has diverged. */
    private static final double DIVERGENCE_RATIO = 1.5;

    /** Factor of the learning rate for each retry. */
    private static final double RETRY_FACTOR = 0.25;

    /** Number of training rows that are evaluated when no rows are held out. */
    private static final int EVALUATED_ROWS = 32;

    /**
     * The result of training.
     *
     * @param parameters the best parameters that were evaluated
     * @param best held-out loss with them
     * @param curve one point for each evaluation, the first before any step
     */
    record Result(Map<String, Tensor> parameters, double best, List<EvalPoint> curve) {}

    /**
     * The models and the data of a training.
     *
     * @param training the model to train, with dropout if requested
     * @param evaluation the same model without dropout
     * @param length number of tokens in a row; shorter rows are padded
     * @param rows training rows, at least one
     * @param heldOut rows whose next-token loss selects the best parameters; if empty, the training objective on some
     *     training rows does
     * @param teacher teacher whose predictions are learned in addition to or instead of the data
     */
    record Setup(
            Trainable training,
            Trainable evaluation,
            int length,
            List<Example> rows,
            List<Example> heldOut,
            Optional<Teacher> teacher) {}

    private final Optional<Teacher> teacher;
    private final TrainingOptions options;
    private final Log log;
    private final OnnxRuntime runtime;
    private final TrainingSession.Files files;
    private TrainingSession session;
    private final ModelInterface decoder;
    private final boolean hasDropout;
    private final boolean keepsHalf;
    private final int length;
    private final List<Example> rows;
    private final List<Example> heldOut;
    private final String kind;
    private final Optional<Teacher> evaluationTeacher;
    private final TrainingCheckpoint checkpoint;
    private Optional<TrainingProgress> start;
    private boolean diverged;
    private double rateFactor = 1;

    /**
     * Prepares training.
     *
     * @param folder folder for the graphs and checkpoints
     * @param resume whether to resume an earlier training that was stopped in this folder
     * @throws io.onnxprune.diag.UserException when an operator that a gradient passes has no derivative, or the
     *     runtime cannot train
     */
    Trainer(Setup setup, TrainingOptions options, Path folder, boolean resume, OnnxRuntime runtime, Log log) {
        boolean holdsOut = !setup.heldOut.isEmpty();
        this.length = setup.length;
        this.rows = setup.rows;
        this.heldOut = holdsOut ? setup.heldOut : rows.subList(0, Math.min(rows.size(), EVALUATED_ROWS));
        this.teacher = setup.teacher;
        this.kind = holdsOut ? "held-out" : "training-set";
        this.evaluationTeacher = holdsOut ? Optional.empty() : teacher;
        this.options = options;
        this.log = log;
        Model train = TrainingGraph.training(setup.training, teacher, runtime, log);
        this.decoder = ModelInterface.of(setup.training.model().graph());
        this.hasDropout = setup.training.hasDropout();
        this.runtime = runtime;
        this.files = files(folder);
        Map<Path, Model> graphs = new LinkedHashMap<>();
        Model evaluation = TrainingGraph.evaluation(setup.evaluation, evaluationTeacher);
        // On the CPU, the runtime casts constants once, when it opens a graph.
        this.keepsHalf = runtime.options().provider() != RuntimeOptions.Provider.CPU
                && (Widening.widensInitializers(train.graph()) || Widening.widensInitializers(evaluation.graph()));
        graphs.put(files.training(), keepsHalf ? Widening.castAtUse(train) : train);
        graphs.put(files.evaluation(), keepsHalf ? Widening.castAtUse(evaluation) : evaluation);
        ModelWriter.writeTogether(graphs, files.weights());
        ModelWriter.write(
                TrainingGraph.optimizer(
                        train,
                        options.optimizer().weightDecay(),
                        options.optimizer().clip()),
                files.optimizer(),
                false);
        this.checkpoint = new TrainingCheckpoint(folder);
        this.start = resume ? checkpoint.load() : Optional.empty();
        if (start.isEmpty()) {
            ParameterFile.write(files.checkpoint(), setup.training.parameters());
        }
        TrainingSession.Files resumed =
                start.map(progress -> files.at(checkpoint.parameters(progress))).orElse(files);
        if (start.isPresent()) {
            ParameterFile.check(resumed.checkpoint());
        }
        this.session = runtime.train(resumed, keepsHalf);
    }

    static TrainingSession.Files files(Path folder) {
        return new TrainingSession.Files(
                folder.resolve("checkpoint"),
                folder.resolve("training_model.onnx"),
                folder.resolve("eval_model.onnx"),
                folder.resolve("optimizer_model.onnx"),
                folder.resolve("frozen.data"));
    }

    /**
     * Takes all steps, or fewer when the held-out loss no longer falls. The largest usable learning rate depends on
     * the model and on its distance from the teacher. A rate that is too large shows early; training then restarts
     * with a lower one, up to the number of retries.
     */
    Result run() {
        TrainingProgress reached = attempt();
        for (int i = 0; i < options.retries() && (diverged || !reached.hasImproved()); i++) {
            rateFactor *= RETRY_FACTOR;
            log.info(String.format(
                    Locale.ROOT,
                    "training restarts with a learning rate of %.2e",
                    rateFactor * options.optimizer().lr()));
            session.close();
            session = runtime.train(files, keepsHalf);
            start = Optional.empty();
            diverged = false;
            reached = attempt();
        }
        return new Result(ParameterFile.read(checkpoint.best()), reached.lowest(), reached.curve());
    }

    private TrainingProgress attempt() {
        int total = options.totalSteps(rows.size());
        long tokens = (long) options.loop().batch() * length;
        TrainingProgress reached = start.orElseGet(this::initialProgress);
        log.info(String.format(
                Locale.ROOT,
                "training: %d steps of %d rows, lowest %s loss %.4f%s",
                total,
                options.loop().batch(),
                kind,
                reached.lowest(),
                start.isPresent() ? ", resumes after step " + reached.step() : ""));
        try (Log.Progress progress = log.progress("training", (total - reached.step()) * tokens)) {
            while (reached.step() < total) {
                EvalPoint point = trainUntilEvaluation(reached.step(), total, progress);
                if (point == null) {
                    break;
                }
                point = point.with(evaluate(heldOut));
                log.info(point.describe(total, kind));
                boolean isBest = point.heldOut() < reached.lowest();
                if (isBest) {
                    session.save(checkpoint.best(), false);
                }
                reached = reached.after(point);
                if (!shouldContinue(reached, point)) {
                    break;
                }
                checkpoint.save(reached, session);
            }
        }
        return reached;
    }

    private TrainingProgress initialProgress() {
        double first = evaluate(heldOut);
        session.save(checkpoint.best(), false);
        return new TrainingProgress(first, 0, List.of(new EvalPoint(0, Double.NaN, first, 0, 0)));
    }

    /** Takes the steps until the next evaluation; null when the loss is not finite. */
    private EvalPoint trainUntilEvaluation(int from, int total, Log.Progress progress) {
        int to = Math.min(
                total, (from / options.loop().evalEvery() + 1) * options.loop().evalEvery());
        long tokens = (long) options.loop().batch() * length;
        long started = System.nanoTime();
        double sum = 0;
        for (int step = from; step < to; step++) {
            double loss = accumulate(batch(step), step);
            if (!Double.isFinite(loss)) {
                log.warn(String.format(
                        Locale.ROOT,
                        "training stopped at step %d: the loss is %s; the best parameters so far are kept; lower the learning rate (--lr)",
                        step + 1,
                        loss));
                diverged = true;
                return null;
            }
            session.step(learningRate(step, total));
            sum += loss;
            progress.step(tokens);
        }
        double seconds = (System.nanoTime() - started) / 1e9;
        return new EvalPoint(
                to, sum / (to - from), Double.NaN, learningRate(to - 1, total), (to - from) * tokens / seconds);
    }

    private double learningRate(int step, int total) {
        return rateFactor * options.learningRate(step, total);
    }

    private boolean shouldContinue(TrainingProgress reached, EvalPoint last) {
        double first = reached.curve().get(0).heldOut();
        if (!(last.heldOut() < DIVERGENCE_RATIO * first)) {
            log.warn(String.format(
                    Locale.ROOT,
                    "training stopped at step %d: the %s loss rose from %.4f to %.4f; the best parameters so far are"
                            + " kept; lower the learning rate (--lr)",
                    last.step(),
                    kind,
                    first,
                    last.heldOut()));
            diverged = true;
            return false;
        }
        if (reached.sinceBest() > 0 && reached.sinceBest() == options.loop().patience()) {
            log.info("the " + kind + " loss no longer falls, so training stops");
            return false;
        }
        return true;
    }

    /** The rows of a step. Every epoch has its own order, which depends on the seed. */
    private List<Example> batch(int step) {
        List<Example> batch = new ArrayList<>();
        for (long at = (long) step * options.loop().batch();
                batch.size() < options.loop().batch();
                at++) {
            batch.add(rows.get(order(rows.size(), at / rows.size())[(int) (at % rows.size())]));
        }
        return batch;
    }

    private long orderedEpoch = -1;
    private int[] ordered;

    private int[] order(int rows, long epoch) {
        if (epoch != orderedEpoch) {
            List<Integer> shuffled =
                    new ArrayList<>(IntStream.range(0, rows).boxed().toList());
            Collections.shuffle(shuffled, new Random(options.seed() + epoch));
            ordered = shuffled.stream().mapToInt(Integer::intValue).toArray();
            orderedEpoch = epoch;
        }
        return ordered;
    }

    private double accumulate(List<Example> batch, int step) {
        double loss = 0;
        int predictions = predictions(batch);
        for (int first = 0; first < batch.size(); first += options.loop().microBatch()) {
            List<Example> part = part(batch, first);
            Map<String, HostTensor> feeds = feeds(part, predictions, step + first / (float) batch.size());
            teacher.ifPresent(other -> feeds.putAll(other.feeds(padded(part))));
            loss += session.accumulate(feeds);
        }
        return loss;
    }

    /** The mean loss over the predictions that count. */
    private double evaluate(List<Example> rows) {
        double loss = 0;
        int predictions = predictions(rows);
        for (int first = 0; first < rows.size(); first += options.loop().microBatch()) {
            List<Example> part = part(rows, first);
            Map<String, HostTensor> feeds = feeds(part, predictions, 0);
            evaluationTeacher.ifPresent(other -> feeds.putAll(other.feeds(padded(part))));
            loss += session.evaluate(feeds);
        }
        return loss;
    }

    private static int predictions(List<Example> rows) {
        return rows.stream().mapToInt(Example::predictions).sum();
    }

    private List<Example> part(List<Example> rows, int first) {
        return rows.subList(first, Math.min(rows.size(), first + options.loop().microBatch()));
    }

    /** Rows padded to one length. The padding comes after a row, so none of its tokens attends to it. */
    private long[][] padded(List<Example> rows) {
        return rows.stream().map(row -> Arrays.copyOf(row.tokens(), length)).toArray(long[][]::new);
    }

    private Map<String, HostTensor> feeds(List<Example> rows, int predictions, float seed) {
        Map<String, HostTensor> feeds = decoder.wholeRows(padded(rows));
        float[] weights = new float[rows.size() * length];
        for (int i = 0; i < rows.size(); i++) {
            Example row = rows.get(i);
            // The logits of a position predict the next token.
            Arrays.fill(weights, i * length + row.first() - 1, i * length + row.tokens().length - 1, 1f / predictions);
        }
        feeds.put(TrainingGraph.WEIGHTS, HostTensor.ofFloat32(new long[] {rows.size(), length}, weights));
        if (hasDropout) {
            feeds.put(Trainable.DROPOUT_SEED, HostTensor.ofFloat32(new long[0], seed));
        }
        return feeds;
    }

    @Override
    public void close() {
        session.close();
    }
}
