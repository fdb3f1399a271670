package io.onnxprune.recover;

import io.onnxprune.diag.Log;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.runtime.DecoderInterface;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.TrainingSession;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;

/** Trains the parameters of a lowered model on rows of tokens. */
final class Trainer implements AutoCloseable {
    private final TrainingSession session;
    private final DecoderInterface decoder;
    private final boolean drops;

    Trainer(Adapters training, Adapters evaluation, double weightDecay, double clip, Path folder, OnnxRuntime runtime, Log log) {
        Model train = TrainingGraph.training(training.model(), training.parameters(), runtime, log);
        Model eval = TrainingGraph.evaluation(evaluation.model(), evaluation.parameters());
        this.decoder = DecoderInterface.of(training.model().graph());
        this.drops = training.model().graph().initializers().containsKey(Adapters.DROPOUT_SEED);
        TrainingSession.Files files = new TrainingSession.Files(
                folder.resolve("checkpoint"),
                folder.resolve("training_model.onnx"),
                folder.resolve("eval_model.onnx"),
                folder.resolve("optimizer_model.onnx"));
        ModelWriter.write(train, files.training(), false);
        ModelWriter.write(eval, files.evaluation(), false);
        ModelWriter.write(TrainingGraph.optimizer(train, weightDecay, clip), files.optimizer(), false);
        ParameterFile.write(files.checkpoint(), training.parameters());
        this.session = runtime.train(files, Map.of());
    }

    /** The mean loss of a batch, in parts of at most {@code micro} rows. */
    double accumulate(List<long[]> batch, int micro, int step) {
        double loss = 0;
        for (int first = 0; first < batch.size(); first += micro) {
            List<long[]> part = batch.subList(first, Math.min(batch.size(), first + micro));
            loss += session.accumulate(feeds(part, batch.size(), (float) (step + first / (double) batch.size())));
        }
        return loss;
    }

    void step(double learningRate) {
        session.step(learningRate);
    }

    double evaluate(List<long[]> rows, int micro) {
        double loss = 0;
        for (int first = 0; first < rows.size(); first += micro) {
            List<long[]> part = rows.subList(first, Math.min(rows.size(), first + micro));
            Map<String, HostTensor> feeds = feeds(part, rows.size(), 0);
            feeds.remove(Adapters.DROPOUT_SEED);
            loss += session.evaluate(feeds);
        }
        return loss;
    }

    private Map<String, HostTensor> feeds(List<long[]> rows, int count, float seed) {
        Map<String, HostTensor> feeds = new HashMap<>(decoder.feeds(rows.toArray(long[][]::new), 0));
        decoder.caches()
                .forEach(cache -> feeds.put(cache.input().name(), DecoderInterface.cache(cache, rows.size(), 0, 0)));
        int length = rows.get(0).length;
        float[] weights = new float[rows.size() * length];
        for (int i = 0; i < weights.length; i++) {
            weights[i] = i % length == length - 1 ? 0 : 1f / (length - 1) / count;
        }
        feeds.put(TrainingGraph.WEIGHTS, HostTensor.ofFloat32(new long[] {rows.size(), length}, weights));
        if (drops) {
            feeds.put(Adapters.DROPOUT_SEED, HostTensor.ofFloat32(new long[0], seed));
        }
        return feeds;
    }

    Map<String, Tensor> parameters(Path file) {
        session.save(file, false);
        return ParameterFile.read(file);
    }

    @Override
    public void close() {
        session.close();
    }
}
