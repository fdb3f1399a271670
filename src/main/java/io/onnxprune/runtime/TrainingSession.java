// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession.Result;
import ai.onnxruntime.OrtTrainingSession;
import io.onnxprune.diag.UserException;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** A model that is trained by ONNX Runtime's training API. Opened by {@link OnnxRuntime#train}. */
public final class TrainingSession implements AutoCloseable {
    private final OnnxRuntime runtime;
    private final OrtTrainingSession session;

    TrainingSession(OnnxRuntime runtime, OrtTrainingSession session) {
        this.runtime = runtime;
        this.session = session;
    }

    /**
     * Runs the model forwards and backwards and adds to the accumulated gradients.
     *
     * @param feeds tensors by input name; superfluous ones are ignored
     * @return the loss
     * @throws UserException when an input is missing or the run fails
     */
    public float accumulate(Map<String, HostTensor> feeds) {
        return run("train", session.getTrainInputNames(), feeds, session::trainStep);
    }

    /**
     * Runs the model forwards only.
     *
     * @param feeds tensors by input name; superfluous ones are ignored
     * @return the loss
     * @throws UserException when an input is missing or the run fails
     */
    public float evaluate(Map<String, HostTensor> feeds) {
        return run("evaluate", session.getEvalInputNames(), feeds, session::evalStep);
    }

    private interface Step {
        Result run(Map<String, OnnxTensor> feeds) throws OrtException;
    }

    private float run(String what, Set<String> names, Map<String, HostTensor> feeds, Step step) {
        // The runtime assigns feeds to its inputs by order, not by name.
        Map<String, OnnxTensor> own = new LinkedHashMap<>();
        try {
            for (String name : names) {
                if (!feeds.containsKey(name)) {
                    throw new UserException("cannot " + what + " the model: its input " + name + " is not given");
                }
                own.put(name, runtime.toOnnx(name, feeds.get(name)));
            }
            try (Result result = step.run(own)) {
                return ((OnnxTensor) result.get(0)).getFloatBuffer().get(0);
            }
        } catch (OrtException e) {
            throw OnnxRuntime.failure("ONNX Runtime cannot " + what + " the model", e);
        } finally {
            own.values().forEach(OnnxTensor::close);
        }
    }

    /**
     * Updates the parameters by the accumulated gradients and resets these.
     *
     * @param learningRate the learning rate of this step
     * @throws UserException when the step fails
     */
    public void step(double learningRate) {
        try {
            session.setLearningRate((float) learningRate);
            session.optimizerStep();
            session.lazyResetGrad();
        } catch (OrtException e) {
            throw OnnxRuntime.failure("ONNX Runtime cannot take a training step", e);
        }
    }

    /**
     * Writes a checkpoint of the parameters.
     *
     * @param optimizer whether the optimizer's moments are written too, so that training can resume
     * @throws UserException when the checkpoint cannot be written
     */
    public void save(Path checkpoint, boolean optimizer) {
        try {
            session.saveCheckpoint(Path.of(NativePath.of(checkpoint)), optimizer);
        } catch (OrtException e) {
            throw OnnxRuntime.failure("ONNX Runtime cannot write the checkpoint " + checkpoint, e);
        }
    }

    @Override
    public void close() {
        session.close();
    }

    /**
     * The files of a training session.
     *
     * @param checkpoint the parameters, and possibly the optimizer's moments
     * @param training the training graph
     * @param evaluation the evaluation graph
     * @param optimizer the optimizer graph
     * @param weights external data of the graphs: frozen weights that training and evaluation share
     */
    public record Files(Path checkpoint, Path training, Path evaluation, Path optimizer, Path weights) {
        /** All five files. */
        public List<Path> all() {
            return List.of(checkpoint, training, evaluation, optimizer, weights);
        }

        /** A copy of these files with another checkpoint. */
        public Files at(Path other) {
            return new Files(other, training, evaluation, optimizer, weights);
        }
    }
}
