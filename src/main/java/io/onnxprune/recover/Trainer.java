package io.onnxprune.recover;

import io.onnxprune.diag.Log;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.runtime.DecoderInterface;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.TrainingSession;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Collections;
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

    /**
     * What came of it.
     *
     * @param parameters the best ones that were seen
     * @param best the held-out loss with them
     * @param curve a point for each look, the first before any step
     */
    record Result(Map<String, Tensor> parameters, double best, List<Look> curve) {}

    private final Optional<Teacher> teacher;
    private final TrainingOptions options;
    private final Log log;
    private final TrainingSession session;
    private final DecoderInterface decoder;
    private final boolean drops;
    private final TrainingNotes notes;
    private final Optional<Course> start;

    /**
     * Prepares training.
     *
     * @param training with dropout where that is asked for
     * @param evaluation the same without
     * @param teacher whose predictions count beside or instead of the data
     * @param folder takes the graphs and checkpoints
     * @param resume whether to go on where an earlier training in this folder was stopped
     * @throws io.onnxprune.diag.UserException if an operator on the way to a parameter has no derivative, or the runtime cannot train
     */
    Trainer(
            Trainable training,
            Trainable evaluation,
            Optional<Teacher> teacher,
            TrainingOptions options,
            Path folder,
            boolean resume,
            OnnxRuntime runtime,
            Log log) {
        this.teacher = teacher;
        this.options = options;
        this.log = log;
        Model train = TrainingGraph.training(training, teacher, runtime, log);
        this.decoder = DecoderInterface.of(training.model().graph());
        this.drops = training.drops();
        TrainingSession.Files files = files(folder);
        ModelWriter.write(train, files.training(), false);
        ModelWriter.write(TrainingGraph.evaluation(evaluation), files.evaluation(), false);
        ModelWriter.write(
                TrainingGraph.optimizer(train, options.weightDecay(), options.clip()), files.optimizer(), false);
        this.notes = new TrainingNotes(folder);
        this.start = resume ? notes.load() : Optional.empty();
        if (start.isEmpty()) {
            ParameterFile.write(files.checkpoint(), training.parameters());
        }
        TrainingSession.Files resumed =
                start.map(course -> files.at(notes.checkpoint(course))).orElse(files);
        this.session = runtime.train(resumed, Map.of());
    }

    static TrainingSession.Files files(Path folder) {
        return new TrainingSession.Files(
                folder.resolve("checkpoint"),
                folder.resolve("training_model.onnx"),
                folder.resolve("eval_model.onnx"),
                folder.resolve("optimizer_model.onnx"));
    }

    /**
     * Takes all steps, or fewer if the held-out loss does not fall any more.
     *
     * @param rows token ids, all of one length, at least as many as a batch has
     * @param heldOut rows of the same length, whose loss says which parameters are best; without any the loss of the rows
     *     themselves does
     */
    Result run(List<long[]> rows, List<long[]> heldOut) {
        int total = options.totalSteps(rows.size());
        long tokens = (long) options.batch() * rows.get(0).length;
        Course course = start.orElseGet(() -> begin(heldOut));
        log.info(String.format(
                Locale.ROOT,
                "training: %d steps of %d rows%s%s",
                total,
                options.batch(),
                Double.isFinite(course.lowest())
                        ? String.format(Locale.ROOT, ", held-out loss %.4f so far", course.lowest())
                        : "",
                start.isPresent() ? ", goes on after step " + course.step() : ""));
        try (Log.Progress progress = log.progress("training", (total - course.step()) * tokens)) {
            while (course.step() < total) {
                Look look = walk(course.step(), total, rows, progress);
                if (look == null) {
                    break;
                }
                look = look.with(heldOut.isEmpty() ? look.loss() : evaluate(heldOut));
                log.info(look.describe(total, !heldOut.isEmpty()));
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
        return new Result(ParameterFile.read(notes.best()), course.lowest(), course.curve());
    }

    private Course begin(List<long[]> heldOut) {
        double first = heldOut.isEmpty() ? Double.POSITIVE_INFINITY : evaluate(heldOut);
        session.save(notes.best(), false);
        return new Course(first, 0, List.of(new Look(0, Double.NaN, first, 0, 0)));
    }

    /** Takes the steps until the next look; null if the loss is no number any more. */
    private Look walk(int from, int total, List<long[]> rows, Log.Progress progress) {
        int to = Math.min(total, (from / options.evaluateEvery() + 1) * options.evaluateEvery());
        long tokens = (long) options.batch() * rows.get(0).length;
        long begin = System.nanoTime();
        double sum = 0;
        for (int step = from; step < to; step++) {
            double loss = accumulate(batch(rows, step), step);
            if (!Double.isFinite(loss)) {
                log.warn(String.format(
                        Locale.ROOT,
                        "training stopped at step %d: the loss is %s; the best parameters so far are kept; lower --lr",
                        step + 1,
                        loss));
                return null;
            }
            session.step(options.learningRate(step, total));
            sum += loss;
            progress.step(tokens);
        }
        double seconds = (System.nanoTime() - begin) / 1e9;
        return new Look(
                to, sum / (to - from), Double.NaN, options.learningRate(to - 1, total), (to - from) * tokens / seconds);
    }

    private boolean goesOn(Course course, Look last) {
        double first = course.curve().stream()
                .mapToDouble(Look::heldOut)
                .filter(Double::isFinite)
                .findFirst()
                .orElse(last.heldOut());
        if (!(last.heldOut() < DIVERGED * first)) {
            log.warn(String.format(
                    Locale.ROOT,
                    "training stopped at step %d: the held-out loss rose from %.4f to %.4f; the best parameters so far are"
                            + " kept; lower --lr",
                    last.step(),
                    first,
                    last.heldOut()));
            return false;
        }
        if (course.misses() > 0 && course.misses() == options.patience()) {
            log.info("the held-out loss does not fall any more, so training ends here");
            return false;
        }
        return true;
    }

    /** The rows of a step: every epoch has an order of its own, which follows from the seed. */
    private List<long[]> batch(List<long[]> rows, int step) {
        List<long[]> batch = new ArrayList<>();
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

    private double accumulate(List<long[]> batch, int step) {
        double loss = 0;
        for (int first = 0; first < batch.size(); first += options.microBatch()) {
            List<long[]> part = part(batch, first);
            Map<String, HostTensor> feeds = feeds(part, batch.size(), step + first / (float) batch.size());
            teacher.ifPresent(other -> feeds.putAll(other.feeds(part)));
            loss += session.accumulate(feeds);
        }
        return loss;
    }

    /** The mean loss of rows. */
    double evaluate(List<long[]> rows) {
        double loss = 0;
        for (int first = 0; first < rows.size(); first += options.microBatch()) {
            loss += session.evaluate(feeds(part(rows, first), rows.size(), 0));
        }
        return loss;
    }

    private List<long[]> part(List<long[]> rows, int first) {
        return rows.subList(first, Math.min(rows.size(), first + options.microBatch()));
    }

    private Map<String, HostTensor> feeds(List<long[]> rows, int count, float seed) {
        Map<String, HostTensor> feeds = decoder.wholeRows(rows.toArray(long[][]::new));
        int length = rows.get(0).length;
        float[] weights = new float[rows.size() * length];
        for (int i = 0; i < weights.length; i++) {
            weights[i] = i % length == length - 1 ? 0 : 1f / (length - 1) / count;
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
