package io.onnxprune.recover;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Linear;
import io.onnxprune.compensate.WeightStore;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.lower.Lowering;
import io.onnxprune.plan.Consumers;
import io.onnxprune.plan.Consumers.Consumer;
import io.onnxprune.recover.Trainable.Adapter;
import io.onnxprune.runtime.OnnxRuntime;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Stream;

/**
 * Trains a model so that it makes up for what pruning took (LLM-Pruner, arXiv 2305.11627, section 3.3), and puts what was learned
 * into its weights: operators and shapes stay as they are.
 */
public final class Recovery {
    private final Structure structure;
    private final Consumers consumers;
    private final TrainingOptions options;
    private final Path folder;
    private final boolean resume;
    private final OnnxRuntime runtime;
    private final Log log;

    /**
     * What came of training.
     *
     * @param updates new contents of constants of the model
     * @param trained how many parameters were trained
     * @param curve the losses
     * @param best the held-out loss of what was kept
     */
    public record Result(Map<Value, Tensor> updates, long trained, List<Look> curve, double best) {}

    private Recovery(
            Structure structure, TrainingOptions options, Path folder, boolean resume, OnnxRuntime runtime, Log log) {
        this.structure = structure;
        this.consumers = Consumers.of(structure);
        this.options = options;
        this.folder = folder;
        this.resume = resume;
        this.runtime = runtime;
        this.log = log;
    }

    /**
     * Trains the model of {@code structure}.
     *
     * @param rows token ids to train on, all rows of one length
     * @param heldOut token ids of rows of the same length, whose loss says when training is at its best; without any that
     *     of the rows themselves does
     * @param teacher whose predictions are learned, of the same vocabulary: the model before pruning
     * @param folder for graphs, checkpoints and new weights
     * @param resume whether to go on where an earlier training in the same folder was stopped
     * @throws UserException if there is nothing to train, an operator has no derivative, or the runtime cannot train
     */
    public static Result run(
            Structure structure,
            List<long[]> rows,
            List<long[]> heldOut,
            Optional<Model> teacher,
            TrainingOptions options,
            Path folder,
            boolean resume,
            OnnxRuntime runtime,
            Log log) {
        return new Recovery(structure, options, folder, resume, runtime, log).run(rows, heldOut, teacher);
    }

    /** The files that a training session in this folder was made of, complete in themselves. */
    public static List<Path> artifacts(Path folder) {
        return Trainer.files(folder).all();
    }

    private Result run(List<long[]> rows, List<long[]> heldOut, Optional<Model> original) {
        int length = rows.get(0).length;
        if (rows.size() < options.batch() && options.steps().isEmpty()) {
            throw new UserException("the training data have " + rows.size() + " rows, fewer than one batch of "
                    + options.batch() + "; give more data, or a smaller --batch");
        }
        Model model = structure.analysis().program().model();
        CalibrationOptions calibration = new CalibrationOptions(CalibrationOptions.DEFAULT_MEMORY, folder, false);
        Calibrator calibrator = Calibrator.of(model, runtime, calibration, length, log);
        Model lowered = calibrator.lowered();
        List<Linear> linears = linears(calibrator);
        Trainable evaluated = options.mode() == TrainingOptions.Mode.LORA
                ? adapters(lowered, linears, 0)
                : Trainable.weights(lowered, Parameters.of(lowered, linears, options.mode()));
        Trainable trained =
                options.mode() == TrainingOptions.Mode.LORA ? adapters(lowered, linears, options.dropout()) : evaluated;
        long count = evaluated.parameters().values().stream()
                .mapToLong(Tensor::elements)
                .sum();
        log.info(String.format("training %,d parameters of %d products", count, linears.size()));
        Optional<Teacher> teacher = original.map(other -> new Teacher(
                Lowering.lower(other, runtime, length, log), options.temperature(), options.distillation()));
        Trainer.Result result;
        try (Trainer trainer = new Trainer(trained, evaluated, teacher, options, folder, resume, runtime, log)) {
            result = trainer.run(rows, heldOut);
        }
        return new Result(merged(evaluated.with(result.parameters())), count, result.curve(), result.best());
    }

    private Trainable adapters(Model lowered, List<Linear> linears, double dropout) {
        return Trainable.adapters(lowered, linears, options.rank(), options.alpha(), dropout, options.seed());
    }

    /** The products of residual blocks that are asked for and whose weights may change. */
    private List<Linear> linears(Calibrator calibrator) {
        Set<Consumer> wanted = new LinkedHashSet<>();
        for (Consumer consumer : consumers.all()) {
            if (consumers.isInside(consumer) && (isOfAttention(consumer) ? options.attention() : options.ffn())) {
                wanted.add(consumer);
            }
        }
        List<Linear> found = new ArrayList<>();
        Set<String> seen = new HashSet<>();
        for (Linear linear : calibrator.linears()) {
            Consumer consumer = consumers.reading(linear.weight());
            if (consumer != null && wanted.contains(consumer) && seen.add(linear.weight())) {
                found.add(linear);
            }
        }
        Optional<String> problem = consumers.problems().entrySet().stream()
                .filter(entry -> consumers.isInside(entry.getKey()))
                .map(Map.Entry::getValue)
                .findFirst();
        if (found.isEmpty()) {
            throw new UserException("no product of this model can be trained: "
                    + problem.orElse("it has none of those that --targets names in its residual blocks"));
        }
        problem.ifPresent(text -> log.warn("not all products are trained: " + text));
        return found;
    }

    private boolean isOfAttention(Consumer consumer) {
        for (Dimension dimension : structure.dimensions()) {
            Role role = dimension.role();
            boolean heads = role == Role.HEADS || role == Role.KV_HEADS || role == Role.QUERY_HEADS;
            if (heads && (consumer.reads(dimension) || consumer.makes(dimension))) {
                return true;
            }
        }
        return false;
    }

    /** The weights of the original with what was learned. */
    private Map<Value, Tensor> merged(Trainable trained) {
        WeightStore store = new WeightStore(folder);
        Map<Value, Tensor> updates = new HashMap<>();
        for (Adapter adapter : trained.adapters()) {
            Consumer consumer = consumers.reading(adapter.linear().weight());
            Tensor weight = consumer.weight().constant();
            try (Matrix w = WeightStore.read(weight, consumer.axis());
                    Matrix down = WeightStore.read(trained.parameters().get(adapter.down()), 0);
                    Matrix up = WeightStore.read(trained.parameters().get(adapter.up()), 0)) {
                Blas.multiply(options.alpha() / options.rank(), down, false, up, false, 1, w);
                updates.put(consumer.weight(), store.write(w, weight, consumer.axis(), consumer.node()));
            }
        }
        if (trained.adapters().isEmpty()) {
            Map<String, Value> constants = structure.analysis().program().constants();
            trained.parameters()
                    .forEach((name, tensor) ->
                            updates.put(constants.get(name), like(constants.get(name), tensor, store)));
        }
        return updates;
    }

    /** What was learned in the element type of the constant that it replaces; matrices off the heap. */
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
     * Removes what a training left in its folder, and the folder.
     *
     * @throws UserException if that cannot be removed
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
