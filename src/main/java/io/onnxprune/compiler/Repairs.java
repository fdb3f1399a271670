// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import io.onnxprune.autodiff.NoDerivativeException;
import io.onnxprune.compensate.KfacCorrection;
import io.onnxprune.compensate.ResidualRefit;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.recipe.Pass;
import io.onnxprune.recipe.PassKind;
import io.onnxprune.recipe.PlanPasses;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.runtime.OnnxRuntime;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.Function;

/** The passes that change the weights of a smaller model, so that it comes nearer to the whole one: refit, correct, recover. */
final class Repairs {
    private final PruneJob job;
    private final Structure structure;
    private final LinearLayers consumers;
    private final ModelRuns runs;
    private final Optional<TrainingRows> training;
    private final OnnxRuntime runtime;
    private final PassClock clock;
    private final Log log;
    private final Set<Value> refitted = new HashSet<>();
    private Optional<KfacCorrection.Result> correction = Optional.empty();
    private Optional<TrainingReport> recovery = Optional.empty();

    /**
     * Prepares them.
     *
     * @param training rows to train on in place of those of the runs
     */
    Repairs(
            PruneJob job,
            Structure structure,
            LinearLayers consumers,
            ModelRuns runs,
            Optional<TrainingRows> training,
            OnnxRuntime runtime,
            PassClock clock,
            Log log) {
        this.job = job;
        this.structure = structure;
        this.consumers = consumers;
        this.runs = runs;
        this.training = training;
        this.runtime = runtime;
        this.clock = clock;
        this.log = log;
    }

    /** The products whose weights bring the residual stream near to that of the whole model; those of earlier runs can be added. */
    Set<Value> refitted() {
        return refitted;
    }

    /** What a correction by gradients came to; empty without one. */
    Optional<KfacCorrection.Result> correction() {
        return correction;
    }

    /** How the smaller model was trained at last; empty if it was not. */
    Optional<TrainingReport> recovery() {
        return recovery;
    }

    /** The same with weights that bring the residual stream near to that of the whole model. */
    Steps.Outcome refitted(Steps.Outcome reached, Pass refit) {
        if (refit == null || reached.plan().removesNothing(structure)) {
            return reached;
        }
        return adjusted("refit", reached, state -> {
            ResidualRefit editor = new ResidualRefit(
                    state,
                    consumers,
                    refit.number("ridge"),
                    refit.flag("bias"),
                    job.calibration().workFolder(),
                    log);
            runs.run(state, true, editor);
            Map<Value, Tensor> changed = editor.updates();
            refitted.addAll(consumers.weights(changed.keySet()));
            return changed;
        });
    }

    /** The same plan with weights that a pass changes, on the model that it leaves. */
    Steps.Outcome adjusted(String pass, Steps.Outcome reached, Function<PrunedState, Map<Value, Tensor>> change) {
        return clock.timed(pass, () -> {
            PrunedState state = PrunedState.of(structure, reached.plan(), reached.updates());
            Map<Value, Tensor> updates = new HashMap<>(reached.updates());
            updates.putAll(change.apply(state));
            return new Steps.Outcome(reached.plan(), updates);
        });
    }

    /** The same with weights that bring the predictions near to those of the whole model. */
    Steps.Outcome corrected(Steps.Outcome reached) {
        Pass correct = job.recipe().pass(PassKind.CORRECT);
        if (correct == null || reached.plan().removesNothing(structure)) {
            return reached;
        }
        return adjusted("correct", reached, state -> {
            KfacCorrection.Result result = correction(state, correct);
            correction = Optional.of(result);
            return result.updates();
        });
    }

    /** The same with weights that were trained to make the predictions of the whole model. */
    Steps.Outcome recovered(Steps.Outcome reached, Pass recover) {
        if (recover == null || reached.plan().removesNothing(structure)) {
            return reached;
        }
        TrainingRows rows = training.orElseGet(() -> TrainingRows.of(runs.rows()));
        return adjusted("recover", reached, state -> {
            StateRecovery.Result result = StateRecovery.of(
                    state,
                    rows,
                    PlanPasses.recovery(recover, job.seed())
                            .withBatchOf(rows.rows().size()),
                    job.calibration().workFolder(),
                    runtime,
                    log);
            recovery = Optional.of(result.report());
            return result.updates();
        });
    }

    private KfacCorrection.Result correction(PrunedState state, Pass correct) {
        try {
            return KfacCorrection.run(
                    state,
                    consumers,
                    runs.calibrator(state.model()),
                    runs.ofWhole(),
                    runs.rows(),
                    PlanPasses.correction(correct),
                    job.calibration().workFolder(),
                    log);
        } catch (NoDerivativeException e) {
            throw new UserException(e.problem() + "; prune with --correct 0", e);
        }
    }
}
