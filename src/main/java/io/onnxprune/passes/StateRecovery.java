// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.compensate.WeightStore;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.measure.AnalysedModel;
import io.onnxprune.pass.PassContext;
import io.onnxprune.recover.Recovery;
import io.onnxprune.recover.TrainingOptions;
import io.onnxprune.recover.TrainingReport;
import io.onnxprune.recover.TrainingRows;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.rewrite.Slicer.Slice;
import io.onnxprune.runtime.OnnxRuntime;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.IntStream;

/** Trains a model that steps have left to make the predictions of the whole one, and says what that makes of the original's weights. */
final class StateRecovery {
    /** Nobody who prunes looks for a learning rate, so a lower one is tried where it is too high for this model. */
    private static final int RETRIES = 4;

    private final PrunedState state;
    private final Path folder;

    private StateRecovery(PrunedState state, Path folder) {
        this.state = state;
        this.folder = folder;
    }

    /**
     * What came of training.
     *
     * @param updates new contents of constants of the original
     */
    record Result(Map<Value, Tensor> updates, TrainingReport report) {}

    /**
     * Trains.
     *
     * @param data what on
     * @param options with the whole model as a teacher unless that counts nothing
     * @throws io.onnxprune.diag.UserException if nothing can be trained, an operator has no derivative, or the runtime cannot train
     */
    static Result of(PrunedState state, TrainingRows data, TrainingOptions options, PassContext context) {
        OnnxRuntime runtime = context.runtime();
        Path own = ownFolder(context.workFolder());
        StateRecovery recovery = new StateRecovery(state, own);
        Structure smaller = AnalysedModel.of(state.model(), runtime, Log.NONE).structure();
        Optional<Model> teacher = options.distillation().distillWeight() == 0
                ? Optional.empty()
                : Optional.of(state.structure().analysis().program().model());
        Recovery.Result result = Recovery.run(
                smaller,
                data,
                new Recovery.Setup(teacher, options.withRetries(RETRIES), true, own, false),
                runtime,
                context.log());
        Map<Value, Tensor> updates = recovery.toOriginal(result.merged(own));
        Recovery.discard(own);
        return new Result(updates, TrainingReport.of(result, data));
    }

    /** Runs that go on side by side in one work folder do not share graphs and checkpoints. */
    private static Path ownFolder(Path workFolder) {
        try {
            return Files.createTempDirectory(Files.createDirectories(workFolder), "recover-");
        } catch (IOException e) {
            throw new UserException("cannot write to " + workFolder + ": " + FileFailure.reason(e), e);
        }
    }

    private Map<Value, Tensor> toOriginal(Map<Value, Tensor> updates) {
        Map<String, Value> originals = state.structure().analysis().program().constants();
        Map<Value, Tensor> widened = new HashMap<>();
        Set<Value> twice = new HashSet<>();
        updates.forEach((value, tensor) -> {
            Slice slice = state.slices().get(value.name());
            Value original = originals.get(slice == null ? value.name() : slice.source());
            // A vector that several places keep different parts of stays as it is: what one learned is not for the
            // others.
            if (original != null
                    && widened.put(original, slice == null ? tensor : toOriginal(original, slice, tensor)) != null) {
                twice.add(original);
            }
        });
        widened.keySet().removeAll(twice);
        return widened;
    }

    private Tensor toOriginal(Value original, Slice slice, Tensor tensor) {
        Tensor present = state.updates().getOrDefault(original, original.constant());
        long[] shape = present.shape();
        int[] first = kept(slice, 0, shape);
        if (shape.length == 1) {
            float[] values = present.toFloats();
            float[] learned = tensor.toFloats();
            for (int i = 0; i < first.length; i++) {
                values[first[i]] = learned[i];
            }
            return Tensor.ofFloats(present.dtype(), shape, values);
        }
        try (Matrix matrix = WeightStore.read(tensor, 0)) {
            return new WeightStore(folder)
                    .write(
                            matrix,
                            new WeightStore.Place(present.dtype(), shape, 0, first, kept(slice, 1, shape)),
                            original.name());
        }
    }

    private static int[] kept(Slice slice, int axis, long[] shape) {
        int[] kept = slice.kept()[axis];
        return kept == null ? IntStream.range(0, (int) shape[axis]).toArray() : kept;
    }
}
