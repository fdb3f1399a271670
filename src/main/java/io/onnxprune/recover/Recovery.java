// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.compensate.WeightStore;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.Example;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.Widening;
import io.onnxprune.lower.Lowering;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.recover.Trainable.Adapter;
import io.onnxprune.recover.TrainableLayers.TrainableLayer;
import io.onnxprune.rewrite.AdapterInputs.Place;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.stream.Stream;

/**
 * Recovery training after pruning (LLM-Pruner, arXiv 2305.11627, section 3.3). Adapters are merged into the weights,
 * so operators and shapes do not change.
 */
public final class Recovery {
    private final Structure structure;
    private final TrainingOptions options;
    private final boolean merges;
    private final Path folder;
    private final boolean resume;
    private final OnnxRuntime runtime;
    private final Log log;

    /**
     * A trained adapter of a linear layer: it adds (x·down)·up to x·W.
     *
     * @param place operators of the layer
     * @param consumer the layer with its weight W, if that may be changed; always present when adapters are merged
     * @param down [n, r], float32
     * @param up [r, outputs], float32
     */
    public record Learned(Place place, Optional<LinearLayer> consumer, Tensor down, Tensor up) {}

    /**
     * The result of training.
     *
     * @param adapters trained adapters; empty when weights were trained
     * @param weights trained weights: new contents of constants of the model
     * @param trained number of trained parameters
     * @param curve the losses
     * @param best held-out loss of the result
     */
    public record Result(
            List<Learned> adapters, Map<Value, Tensor> weights, long trained, List<EvalPoint> curve, double best) {
        /**
         * New contents of all changed constants of the model, with adapters merged into the weights.
         *
         * @param folder folder for weights that do not fit the heap; they are valid as long as their files
         */
        public Map<Value, Tensor> merged(Path folder) {
            WeightStore store = new WeightStore(folder);
            Map<Value, Tensor> updates = new HashMap<>(weights);
            for (Learned adapter : adapters) {
                LinearLayer linearLayer = adapter.consumer.orElseThrow();
                Tensor weight = linearLayer.weight().constant();
                try (Matrix w = WeightStore.read(weight, linearLayer.axis());
                        Matrix down = WeightStore.read(adapter.down, 0);
                        Matrix up = WeightStore.read(adapter.up, 0)) {
                    Blas.multiply(1, down, false, up, false, 1, w);
                    updates.put(linearLayer.weight(), store.write(w, weight, linearLayer.axis(), linearLayer.node()));
                }
            }
            return updates;
        }
    }

    /**
     * How a model is trained.
     *
     * @param teacher a model whose predictions are learned, of the same vocabulary: the model before pruning
     * @param merges whether trained adapters will go into weights, so that only weights that may be changed are trained
     * @param folder for graphs, checkpoints and new weights
     * @param resume whether to go on where an earlier training in the same folder was stopped
     */
    public record Setup(
            Optional<Model> teacher, TrainingOptions options, boolean merges, Path folder, boolean resume) {}

    private Recovery(Structure structure, Setup setup, OnnxRuntime runtime, Log log) {
        this.structure = structure;
        this.options = setup.options;
        this.merges = setup.merges;
        this.folder = setup.folder;
        this.resume = setup.resume;
        this.runtime = runtime;
        this.log = log;
    }

    /**
     * Trains the model of {@code structure}.
     *
     * @throws UserException if there is nothing to train, an operator has no derivative, or the runtime cannot train
     */
    public static Result run(Structure structure, TrainingRows data, Setup setup, OnnxRuntime runtime, Log log) {
        return new Recovery(structure, setup, runtime, log).run(data.rows(), data.heldOut(), setup.teacher);
    }

    /** The existing files that the training session in this folder was created from. */
    public static List<Path> artifacts(Path folder) {
        return Trainer.files(folder).all().stream().filter(Files::exists).toList();
    }

    /** Whether a file of this name is one of those that {@link #artifacts} finds. */
    public static boolean isArtifact(String name) {
        return Trainer.files(Path.of("")).all().contains(Path.of(name));
    }

    private Result run(List<Example> rows, List<Example> heldOut, Optional<Model> original) {
        int length = Stream.concat(rows.stream(), heldOut.stream())
                .mapToInt(row -> row.tokens().length)
                .max()
                .orElseThrow();
        if (rows.size() < options.loop().batch() && options.loop().steps().isEmpty()) {
            throw new UserException("the training data have " + rows.size() + " rows, fewer than one batch of "
                    + options.loop().batch() + "; give more data, or a smaller --batch");
        }
        Model model = structure.analysis().program().model();
        CalibrationOptions calibration = new CalibrationOptions(CalibrationOptions.DEFAULT_MEMORY, folder, false);
        Calibrator calibrator = Calibrator.of(model, runtime, calibration, length, log);
        List<TrainableLayer> layers = new TrainableLayers(structure, merges)
                .select(calibrator.linears(), Targets.of(options.trained().targets()), log);
        List<LoweredLinear> linears =
                layers.stream().map(TrainableLayer::linear).toList();
        boolean adapts = options.trained().train() == TrainingOptions.Mode.LORA;
        Model lowered = adapts ? frozen(calibrator.lowered()) : calibrator.lowered();
        Trainable evaluated = adapts
                ? adapters(lowered, linears, 0)
                : Trainable.weights(
                        lowered,
                        Parameters.of(lowered, linears, options.trained().train()));
        Trainable trained =
                adapts ? adapters(lowered, linears, options.trained().dropout()) : evaluated;
        long count = evaluated.parameters().values().stream()
                .mapToLong(Tensor::elements)
                .sum();
        log.info(String.format("training %,d parameters of %d linear layers", count, linears.size()));
        Optional<Teacher> teacher = original.map(other -> new Teacher(
                frozen(Lowering.lower(other, runtime, length, log)),
                options.distillation().temperature(),
                options.distillation().distillWeight()));
        Trainer.Result result;
        Trainer.Setup setup = new Trainer.Setup(trained, evaluated, length, rows, heldOut, teacher);
        try (Trainer trainer = new Trainer(setup, options, folder, resume, runtime, log)) {
            result = trainer.run();
        }
        return new Result(
                learned(layers, evaluated.adapters(), result.parameters()),
                adapts ? Map.of() : weights(result.parameters()),
                count,
                result.curve(),
                result.best());
    }

    /**
     * A lowered model with its frozen weights as a training session takes them: on the CPU in float32, which the
     * sessions share in a file; on another device as they are stored.
     */
    private Model frozen(Model lowered) {
        return runtime.options().provider() == RuntimeOptions.Provider.CPU
                ? Widening.widenInitializers(lowered)
                : lowered;
    }

    private Trainable adapters(Model lowered, List<LoweredLinear> linears, double dropout) {
        return Trainable.adapters(
                lowered, linears, options.trained().rank(), options.trained().alpha(), dropout, options.seed());
    }

    private List<Learned> learned(List<TrainableLayer> layers, List<Adapter> adapters, Map<String, Tensor> parameters) {
        Map<LoweredLinear, TrainableLayer> byLinear = new HashMap<>();
        layers.forEach(layer -> byLinear.put(layer.linear(), layer));
        List<Learned> learned = new ArrayList<>();
        for (Adapter adapter : adapters) {
            Tensor up = parameters.get(adapter.up());
            float[] scaled = up.toFloats();
            for (int i = 0; i < scaled.length; i++) {
                scaled[i] *=
                        (float) (options.trained().alpha() / options.trained().rank());
            }
            TrainableLayer layer = byLinear.get(adapter.linear());
            learned.add(new Learned(
                    layer.place(),
                    layer.consumer(),
                    parameters.get(adapter.down()),
                    Tensor.ofFloats(up.dtype(), up.shape(), scaled)));
        }
        return learned;
    }

    private Map<Value, Tensor> weights(Map<String, Tensor> parameters) {
        WeightStore store = new WeightStore(folder);
        Map<String, Value> constants = structure.analysis().program().constants();
        Map<Value, Tensor> weights = new HashMap<>();
        parameters.forEach(
                (name, tensor) -> weights.put(constants.get(name), like(constants.get(name), tensor, store)));
        return weights;
    }

    /** The trained values in the element type of the constant that they replace; matrices are stored off the heap. */
    private static Tensor like(Value original, Tensor learned, WeightStore store) {
        Tensor constant = original.constant();
        if (constant.rank() != 2) {
            return Tensor.ofFloats(constant.dtype(), constant.shape(), learned.toFloats());
        }
        try (Matrix w = WeightStore.read(learned, 0)) {
            return store.write(w, constant, 0, original.name());
        }
    }

    /**
     * Removes a training folder with its files.
     *
     * @throws UserException when it cannot be removed
     */
    public static void discard(Path folder) {
        try (Stream<Path> files = Files.list(folder)) {
            for (Path file : files.toList()) {
                Files.deleteIfExists(file);
            }
            Files.delete(folder);
        } catch (IOException e) {
            throw new UserException("cannot remove " + folder + ": " + FileFailure.reason(e), e);
        }
    }
}
