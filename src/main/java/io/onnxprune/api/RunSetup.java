// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.UsageException;
import io.onnxprune.eval.DataRequest;
import io.onnxprune.measure.StatisticsProvider;
import io.onnxprune.passes.CalibratePass;
import io.onnxprune.passes.RecoverPass;
import io.onnxprune.passes.RotatePass;
import io.onnxprune.passes.SparsifyPass;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.recipe.Recipe;
import java.util.List;
import java.util.Optional;

/** What the settings of a {@link Pruner} come to: the recipe that runs, the target, and the data. */
final class RunSetup {
    private static final List<String> OUTPUT = List.of("rewrite", "emit", "verify");

    private final Pruner pruner;
    private final Pruner.Builder settings;
    private final Recipe recipe;
    private final Optional<Budget> requested;
    private final DataRequest request;

    /**
     * Settles the recipe and the data; nothing is opened.
     *
     * @throws UsageException if settings do not go together
     */
    RunSetup(Pruner pruner, ProgressListener listener) {
        this.pruner = pruner;
        this.settings = pruner.settings();
        Recipe base = settings.recipe().resolve(settings.seed(), settings.data().sequenceLength());
        boolean allocates = base.has("allocate");
        if (allocates && settings.plan().isEmpty()) {
            base = new UniformLayout(pruner.input(), settings.clients(), settings.recipe(), listener).applied(base);
        }
        List<Budget> budgets = settings.plan().isPresent() ? List.of() : RecipeSettings.budgets(base);
        // The last allocate pass decides how small the model becomes.
        requested = budgets.isEmpty() ? Optional.empty() : Optional.of(budgets.get(budgets.size() - 1));
        boolean nothing = !budgets.isEmpty() && budgets.stream().allMatch(Budget::isNothing);
        if (settings.recipe().trains() && nothing) {
            throw new UsageException(
                    "--ratio 0 removes nothing, so --recover has no effect; to train a model as it is, use"
                            + " onnx-prune recover");
        }
        recipe = settled(nothing ? keepingAll(base) : withoutIdleRotation(withoutIdleZeros(base)));
        recipe.check();
        DataNeeds needs = new DataNeeds(recipe.schedule(repeat -> repeat.count(mostPruned())));
        checkStatistics(needs, nothing);
        request = request(needs);
    }

    /** The recipe that runs. */
    Recipe recipe() {
        return recipe;
    }

    /** The target; empty where a plan was given, or nothing is to be pruned but only to become zero. */
    Optional<Budget> requested() {
        return requested;
    }

    /** The data to calibrate and to evaluate on. */
    DataRequest request() {
        return request;
    }

    long seed() {
        return settings.seed().orElse(0L);
    }

    /** The pass that trains on a file. */
    Optional<RecoverPass> trainingFile() {
        return recipe.all("recover").stream()
                .map(step -> (RecoverPass) step.pass())
                .filter(pass -> pass.file().isPresent())
                .findFirst();
    }

    /** A recipe with the plan that was given, and with what writes only where that is asked for. */
    private Recipe settled(Recipe chosen) {
        Recipe planned = settings.plan().map(chosen::withPlan).orElse(chosen);
        Recipe written = pruner.target().isEmpty() ? planned.without(OUTPUT.toArray(String[]::new)) : planned;
        if (pruner.target().isPresent() && !written.has("emit")) {
            throw new UsageException("recipe " + written.name()
                    + " has no pass emit, so it writes nothing; add {pass: rewrite} and {pass: emit} to it");
        }
        return written;
    }

    /** A recipe that prunes nothing. */
    private static Recipe keepingAll(Recipe base) {
        return base.without(
                "add-biases",
                "rotate",
                "score",
                "gates",
                "allocate",
                "search",
                "prune-layerwise",
                "compensate",
                "refit",
                "correct",
                "recover");
    }

    /** A recipe without passes that are to make no zeros. */
    private static Recipe withoutIdleZeros(Recipe base) {
        boolean idle = base.all("sparsify").stream().allMatch(step -> ((SparsifyPass) step.pass()).isNothing());
        return idle ? base.without("sparsify") : base;
    }

    /** A recipe without passes that rotate what no pass prunes. A plan from a file may prune anything. */
    private Recipe withoutIdleRotation(Recipe base) {
        List<PruneSet> pruned =
                base.passes().stream().flatMap(pass -> pass.prunes().stream()).toList();
        return settings.plan().isPresent()
                ? base
                : base.without(step -> step.pass() instanceof RotatePass rotate && rotate.isIdle(pruned));
    }

    /** The largest share of the parameters that the target may come to. */
    private double mostPruned() {
        return requested
                .map(budget -> budget.goal() == Budget.Goal.RATIO ? budget.amount() : 1.0)
                .orElse(1.0);
    }

    private void checkStatistics(DataNeeds needs, boolean nothing) {
        StatisticsProvider.Files files = settings.statistics();
        String option = files.in().isPresent() ? "--stats" : "--stats-out";
        if (files.in().isPresent() && files.out().isPresent()) {
            throw new UsageException(
                    "--stats says that nothing is measured which --stats-out could keep; give one of them");
        }
        if (files.equals(StatisticsProvider.Files.NONE)) {
            return;
        }
        if (settings.plan().isPresent() || nothing) {
            throw new UsageException(
                    (nothing ? "--ratio 0 removes nothing" : "--plan already determines the kept units") + ", so "
                            + option + " has no effect; leave it out");
        }
        if (!needs.beginsWithMoments()) {
            throw new UsageException(
                    option + " is for methods that begin with second moments of the dense model (score metric"
                            + " obs, sparsify by surgeon), which " + recipe.name() + " does not; leave it out");
        }
    }

    private static void rejectWithoutCalibration(boolean given, String option) {
        if (given) {
            throw new UsageException(option + " is for methods that calibrate, which this one does not; leave it out");
        }
    }

    private DataRequest request(DataNeeds needs) {
        boolean measured = settings.statistics().in().isPresent() && needs.onlyMoments();
        boolean calibrates = needs.rows() && !measured;
        if (settings.deviceMemoryGiven() && !settings.runsOnDevice()) {
            throw new UsageException("--device-memory has an effect only with --provider cuda; leave it out");
        }
        if (!calibrates) {
            rejectWithoutCalibration(settings.memoryGiven(), "--memory");
            rejectWithoutCalibration(settings.deviceMemoryGiven(), "--device-memory");
            rejectWithoutCalibration(settings.resumes(), "--resume");
        }
        DataRequest asked = settings.data().request(calibrates, trainingFile().isPresent(), seed());
        if (settings.data().usual().isPresent()) {
            DataSettings.Usual usual = settings.data().usual().get();
            return asked.withDefaults(usual.windows(), usual.length());
        }
        return calibrates
                ? recipe.first("calibrate")
                        .map(step -> (CalibratePass) step.pass())
                        .map(pass -> asked.withDefaults(pass.samples(), pass.seqLen()))
                        .orElse(asked)
                : asked;
    }
}
