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
import io.onnxprune.recover.Products.Product;
import io.onnxprune.recover.Trainable.Adapter;
import io.onnxprune.rewrite.AdapterInputs.Place;
import io.onnxprune.runtime.OnnxRuntime;
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
 * Trains a model so that it makes up for what pruning took (LLM-Pruner, arXiv 2305.11627, section 3.3), and puts what was learned
 * into its weights: operators and shapes stay as they are.
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
     * What was learned for a product: to x·W it adds (x·down)·up.
     *
     * @param place where it is
     * @param consumer with W, where that may be changed; always there if that was asked for
     * @param down [n, r], float32
     * @param up [r, outputs], float32
     */
    public record Learned(Place place, Optional<LinearLayer> consumer, Tensor down, Tensor up) {}

    /**
     * What came of training.
     *
     * @param adapters beside products; none where weights were trained themselves
     * @param weights new contents of constants of the model that were trained themselves
     * @param trained how many parameters were trained
     * @param curve the losses
     * @param best the held-out loss of what was kept
     */
    public record Result(
            List<Learned> adapters, Map<Value, Tensor> weights, long trained, List<EvalPoint> curve, double best) {
        /**
         * New contents of all constants of the model that training changes, those of products with what adapters add.
         *
         * @param folder for weights that do not fit the heap; they live as long as their files in it
         */
        public Map<Value, Tensor> merged(Path folder) {
            WeightStore store = new WeightStore(folder);
            Map<Value, Tensor> updates = new HashMap<>(weights);
            for (Learned adapter : adapters) {
                LinearLayer product = adapter.consumer.orElseThrow();
                Tensor weight = product.weight().constant();
                try (Matrix w = WeightStore.read(weight, product.axis());
                        Matrix down = WeightStore.read(adapter.down, 0);
                        Matrix up = WeightStore.read(adapter.up, 0)) {
                    Blas.multiply(1, down, false, up, false, 1, w);
                    updates.put(product.weight(), store.write(w, weight, product.axis(), product.node()));
                }
            }
            return updates;
        }
    }

    private Recovery(
            Structure structure,
            TrainingOptions options,
            boolean merges,
            Path folder,
            boolean resume,
            OnnxRuntime runtime,
            Log log) {
        this.structure = structure;
        this.options = options;
        this.merges = merges;
        this.folder = folder;
        this.resume = resume;
        this.runtime = runtime;
        this.log = log;
    }

    /**
     * Trains the model of {@code structure}.
     *
     * @param rows to train on
     * @param heldOut rows whose loss says when training is at its best; without any that of the rows themselves does
     * @param teacher whose predictions are learned, of the same vocabulary: the model before pruning
     * @param merges whether what is learned will go into weights, so that only what may be changed is trained
     * @param folder for graphs, checkpoints and new weights
     * @param resume whether to go on where an earlier training in the same folder was stopped
     * @throws UserException if there is nothing to train, an operator has no derivative, or the runtime cannot train
     */
    public static Result run(
            Structure structure,
            List<Example> rows,
            List<Example> heldOut,
            Optional<Model> teacher,
            TrainingOptions options,
            boolean merges,
            Path folder,
            boolean resume,
            OnnxRuntime runtime,
            Log log) {
        return new Recovery(structure, options, merges, folder, resume, runtime, log).run(rows, heldOut, teacher);
    }

    /** The files that a training session in this folder was made of, complete in themselves. */
    public static List<Path> artifacts(Path folder) {
        return Trainer.files(folder).all().stream().filter(Files::exists).toList();
    }

    private Result run(List<Example> rows, List<Example> heldOut, Optional<Model> original) {
        int length = Stream.concat(rows.stream(), heldOut.stream())
                .mapToInt(row -> row.tokens().length)
                .max()
                .orElseThrow();
        if (rows.size() < options.batch() && options.steps().isEmpty()) {
            throw new UserException("the training data have " + rows.size() + " rows, fewer than one batch of "
                    + options.batch() + "; give more data, or a smaller --batch");
        }
        Model model = structure.analysis().program().model();
        CalibrationOptions calibration = new CalibrationOptions(CalibrationOptions.DEFAULT_MEMORY, folder, false);
        Calibrator calibrator = Calibrator.of(model, runtime, calibration, length, log);
        List<Product> products = new Products(structure, merges).wanted(calibrator.linears(), options.targets(), log);
        List<LoweredLinear> linears = products.stream().map(Product::linear).toList();
        boolean adapts = options.mode() == TrainingOptions.Mode.LORA;
        Model lowered = adapts ? Widening.widenInitializers(calibrator.lowered()) : calibrator.lowered();
        Trainable evaluated = adapts
                ? adapters(lowered, linears, 0)
                : Trainable.weights(lowered, Parameters.of(lowered, linears, options.mode()));
        Trainable trained = adapts ? adapters(lowered, linears, options.dropout()) : evaluated;
        long count = evaluated.parameters().values().stream()
                .mapToLong(Tensor::elements)
                .sum();
        log.info(String.format("training %,d parameters of %d products", count, linears.size()));
        Optional<Teacher> teacher = original.map(other -> new Teacher(
                Widening.widenInitializers(Lowering.lower(other, runtime, length, log)),
                options.temperature(),
                options.distillation()));
        Trainer.Result result;
        try (Trainer trainer = new Trainer(
                trained, evaluated, length, rows, heldOut, teacher, options, folder, resume, runtime, log)) {
            result = trainer.run();
        }
        return new Result(
                learned(products, evaluated.adapters(), result.parameters()),
                adapts ? Map.of() : weights(result.parameters()),
                count,
                result.curve(),
                result.best());
    }

    private Trainable adapters(Model lowered, List<LoweredLinear> linears, double dropout) {
        return Trainable.adapters(lowered, linears, options.rank(), options.alpha(), dropout, options.seed());
    }

    private List<Learned> learned(List<Product> products, List<Adapter> adapters, Map<String, Tensor> parameters) {
        Map<LoweredLinear, Product> byLinear = new HashMap<>();
        products.forEach(product -> byLinear.put(product.linear(), product));
        List<Learned> learned = new ArrayList<>();
        for (Adapter adapter : adapters) {
            Tensor up = parameters.get(adapter.up());
            float[] scaled = up.toFloats();
            for (int i = 0; i < scaled.length; i++) {
                scaled[i] *= (float) (options.alpha() / options.rank());
            }
            Product product = byLinear.get(adapter.linear());
            learned.add(new Learned(
                    product.place(),
                    product.consumer(),
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
