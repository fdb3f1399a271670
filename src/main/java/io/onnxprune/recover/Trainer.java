// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.diag.Log;
import io.onnxprune.eval.Example;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.runtime.DecoderInterface;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.OnnxRuntime;
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

/** Trains the parameters of a model on rows of tokens, with ONNX Runtime's training API. */
final class Trainer implements AutoCloseable {
    /** A held-out loss so many times that of the start is no bad luck any more. */
    private static final double DIVERGED = 1.5;

    /** How much lower the learning rate is in the next try. */
    private static final double LOWER = 0.25;

    /** Where no rows are held out, so many of those that are trained on tell how training goes. */
    private static final int OWN_ROWS = 32;

    /**
     * What came of it.
     *
     * @param parameters the best ones that were seen
     * @param best the held-out loss with them
     * @param curve a point for each look, the first before any step
     */
    record Result(Map<String, Tensor> parameters, double best, List<EvalPoint> curve) {}

    private final Optional<Teacher> teacher;
    private final TrainingOptions options;
    private final Log log;
    private final OnnxRuntime runtime;
    private final TrainingSession.Files files;
    private TrainingSession session;
    private final DecoderInterface decoder;
    private final boolean drops;
    private final int length;
    private final List<Example> rows;
    private final List<Example> heldOut;
    private final String kind;
    private final Optional<Teacher> examiner;
    private final TrainingCheckpoint notes;
    private Optional<TrainingProgress> start;
    private boolean diverged;
    private double rate = 1;

    /**
     * Prepares training.
     *
     * @param training with dropout where that is asked for
     * @param evaluation the same without
     * @param length tokens of a row; shorter rows are filled up
     * @param rows to train on, at least one
     * @param heldOut rows whose next tokens say which parameters are best; without any, what is trained for does on some of
     *     the rows themselves
     * @param teacher whose predictions count beside or instead of the data
     * @param folder takes the graphs and checkpoints
     * @param resume whether to go on where an earlier training in this folder was stopped
     * @throws io.onnxprune.diag.UserException if an operator on the way to a parameter has no derivative, or the runtime cannot train
     */
    Trainer(
            Trainable training,
            Trainable evaluation,
            int length,
            List<Example> rows,
            List<Example> heldOut,
            Optional<Teacher> teacher,
            TrainingOptions options,
            Path folder,
            boolean resume,
            OnnxRuntime runtime,
            Log log) {
        this.length = length;
        this.rows = rows;
        this.heldOut = heldOut.isEmpty() ? rows.subList(0, Math.min(rows.size(), OWN_ROWS)) : heldOut;
        this.teacher = teacher;
        this.kind = heldOut.isEmpty() ? "own" : "held-out";
        this.examiner = heldOut.isEmpty() ? teacher : Optional.empty();
        this.options = options;
        this.log = log;
        Model train = TrainingGraph.training(training, teacher, runtime, log);
        this.decoder = DecoderInterface.of(training.model().graph());
        this.drops = training.drops();
        this.runtime = runtime;
        this.files = files(folder);
        Map<Path, Model> graphs = new LinkedHashMap<>();
        graphs.put(files.training(), train);
        graphs.put(files.evaluation(), TrainingGraph.evaluation(evaluation, examiner));
        ModelWriter.writeTogether(graphs, files.weights());
        ModelWriter.write(
                TrainingGraph.optimizer(train, options.weightDecay(), options.clip()), files.optimizer(), false);
        this.notes = new TrainingCheckpoint(folder);
        this.start = resume ? notes.load() : Optional.empty();
        if (start.isEmpty()) {
            ParameterFile.write(files.checkpoint(), training.parameters());
        }
        TrainingSession.Files resumed =
                start.map(course -> files.at(notes.checkpoint(course))).orElse(files);
        this.session = runtime.train(resumed);
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
     * Takes all steps, or fewer if the held-out loss does not fall any more. How large a learning rate may be depends on the model
     * and on how near it is to its teacher; one that is too large shows soon, and a lower one is tried as often as is asked for.
     */
    Result run() {
        TrainingProgress course = attempt();
        for (int i = 0; i < options.retries() && (diverged || course.isAtItsBeginning()); i++) {
            rate *= LOWER;
            log.info(String.format(Locale.ROOT, "again with a learning rate of %.2e", rate * options.learningRate()));
            session.close();
            session = runtime.train(files);
            start = Optional.empty();
            diverged = false;
            course = attempt();
        }
        return new Result(ParameterFile.read(notes.best()), course.lowest(), course.curve());
    }

    private TrainingProgress attempt() {
        int total = options.totalSteps(rows.size());
        long tokens = (long) options.batch() * length;
        TrainingProgress course = start.orElseGet(this::begin);
        log.info(String.format(
                Locale.ROOT,
                "training: %d steps of %d rows, %s loss %.4f so far%s",
                total,
                options.batch(),
                kind,
                course.lowest(),
                start.isPresent() ? ", goes on after step " + course.step() : ""));
        try (Log.Progress progress = log.progress("training", (total - course.step()) * tokens)) {
            while (course.step() < total) {
                EvalPoint look = walk(course.step(), total, progress);
                if (look == null) {
                    break;
                }
                look = look.with(evaluate(heldOut));
                log.info(look.describe(total, kind));
                boolean isBest = look.heldOut() < course.lowest();
                if (isBest) {
                    session.save(notes.best(), false);
                }
                course = course.after(look);
                if (!goesOn(course, look)) {
                    break;
                }
                notes.save(course, session);
            }
        }
        return course;
    }

    private TrainingProgress begin() {
        double first = evaluate(heldOut);
        session.save(notes.best(), false);
        return new TrainingProgress(first, 0, List.of(new EvalPoint(0, Double.NaN, first, 0, 0)));
    }

    /** Takes the steps until the next look; null if the loss is no number any more. */
    private EvalPoint walk(int from, int total, Log.Progress progress) {
        int to = Math.min(total, (from / options.evaluateEvery() + 1) * options.evaluateEvery());
        long tokens = (long) options.batch() * length;
        long begin = System.nanoTime();
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
        double seconds = (System.nanoTime() - begin) / 1e9;
        return new EvalPoint(
                to, sum / (to - from), Double.NaN, learningRate(to - 1, total), (to - from) * tokens / seconds);
    }

    private double learningRate(int step, int total) {
        return rate * options.learningRate(step, total);
    }

    private boolean goesOn(TrainingProgress course, EvalPoint last) {
        double first = course.curve().get(0).heldOut();
        if (!(last.heldOut() < DIVERGED * first)) {
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
        if (course.misses() > 0 && course.misses() == options.patience()) {
            log.info("the " + kind + " loss does not fall any more, so training ends here");
            return false;
        }
        return true;
    }

    /** The rows of a step: every epoch has an order of its own, which follows from the seed. */
    private List<Example> batch(int step) {
        List<Example> batch = new ArrayList<>();
        for (long at = (long) step * options.batch(); batch.size() < options.batch(); at++) {
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
        for (int first = 0; first < batch.size(); first += options.microBatch()) {
            List<Example> part = part(batch, first);
            Map<String, HostTensor> feeds = feeds(part, predictions, step + first / (float) batch.size());
            teacher.ifPresent(other -> feeds.putAll(other.feeds(filled(part))));
            loss += session.accumulate(feeds);
        }
        return loss;
    }

    /** The mean loss of the predictions that count. */
    private double evaluate(List<Example> rows) {
        double loss = 0;
        int predictions = predictions(rows);
        for (int first = 0; first < rows.size(); first += options.microBatch()) {
            List<Example> part = part(rows, first);
            Map<String, HostTensor> feeds = feeds(part, predictions, 0);
            examiner.ifPresent(other -> feeds.putAll(other.feeds(filled(part))));
            loss += session.evaluate(feeds);
        }
        return loss;
    }

    private static int predictions(List<Example> rows) {
        return rows.stream().mapToInt(Example::predictions).sum();
    }

    private List<Example> part(List<Example> rows, int first) {
        return rows.subList(first, Math.min(rows.size(), first + options.microBatch()));
    }

    /** Rows of one length: what stands behind a shorter one is seen by none of its tokens. */
    private long[][] filled(List<Example> rows) {
        return rows.stream().map(row -> Arrays.copyOf(row.tokens(), length)).toArray(long[][]::new);
    }

    private Map<String, HostTensor> feeds(List<Example> rows, int predictions, float seed) {
        Map<String, HostTensor> feeds = decoder.wholeRows(filled(rows));
        float[] weights = new float[rows.size() * length];
        for (int i = 0; i < rows.size(); i++) {
            Example row = rows.get(i);
            // The logits of a token are for the next one.
            Arrays.fill(weights, i * length + row.first() - 1, i * length + row.tokens().length - 1, 1f / predictions);
        }
        feeds.put(TrainingGraph.WEIGHTS, HostTensor.ofFloat32(new long[] {rows.size(), length}, weights));
        if (drops) {
            feeds.put(Trainable.DROPOUT_SEED, HostTensor.ofFloat32(new long[0], seed));
        }
        return feeds;
    }

    @Override
    public void close() {
        session.close();
    }
}
