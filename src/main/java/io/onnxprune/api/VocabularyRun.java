// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.FileTree;
import io.onnxprune.diag.InputFiles;
import io.onnxprune.diag.PassClock;
import io.onnxprune.diag.ProcessMemory;
import io.onnxprune.diag.TemporaryFolder;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.Provenance;
import io.onnxprune.eval.CalibrationData;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.eval.CountedText;
import io.onnxprune.eval.DataRequest;
import io.onnxprune.eval.EvalOptions;
import io.onnxprune.eval.Evaluation;
import io.onnxprune.eval.Evaluator;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.measure.AnalysedModel;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.recipe.Recipe;
import io.onnxprune.recover.AdapterFile;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.verify.ColumnVerifier;
import io.onnxprune.vocabulary.KeepFile;
import io.onnxprune.vocabulary.KeptTokens;
import io.onnxprune.vocabulary.ReducedFolder;
import io.onnxprune.vocabulary.TokenChoice;
import io.onnxprune.vocabulary.TokenizerFile;
import io.onnxprune.vocabulary.VocabularyTables;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalDouble;
import java.util.OptionalInt;

/**
 * A run that prunes the vocabulary. It first writes a model with the kept tokens, and the tokenizer that fits it, into a
 * folder of its own. The rest of the recipe runs on that folder as on any other model, so it needs to know nothing about
 * tokens. The report compares with the original.
 */
final class VocabularyRun {
    private final Pruner pruner;
    private final Pruner.Builder settings;
    private final VocabularyRecipe recipe;
    private final ProgressListener listener;
    private final PassClock clock;
    private final DataRequest request;
    private final InputFiles inputs;

    /** The original model. */
    private record Original(
            Model model, VocabularyTables tables, ParameterCount count, Optional<TokenizerFile> tokenizer) {
        ParameterCount.Size size() {
            return count.dense();
        }
    }

    /** The original without tokens, in a folder. */
    private record Reduced(Path folder, Path place, KeptTokens kept, int required, OptionalDouble difference) {}

    /**
     * Settles the recipe and the data, before anything is opened.
     *
     * @throws io.onnxprune.diag.UsageException if settings do not go together
     */
    VocabularyRun(Pruner pruner, VocabularyRecipe recipe, ProgressListener listener) {
        this.pruner = pruner;
        this.settings = pruner.settings();
        this.recipe = recipe;
        this.listener = listener;
        this.clock = new PassClock(listener);
        Pruner rest = pruner.with(
                settings.model(),
                RecipeSettings.settled(recipe.unmeasured()),
                settings.data().withoutIdleTokenizer());
        this.request = new RunSetup(rest, ProgressListener.NONE).request();
        this.inputs = InputFiles.of(settings.recipe().file().stream().toList());
    }

    /** Does the work. */
    PruneReport on(OnnxRuntime runtime) {
        clock.timed("hash", () -> inputs.add(pruner.files().inputs()));
        return inputs.guard(() -> pruned(runtime));
    }

    private PruneReport pruned(OnnxRuntime runtime) {
        Original original = original(runtime);
        TokenChoice choice = choice(original);
        Optional<CountedText> text = text(original);
        KeptTokens kept = clock.timed("choose-tokens", () -> kept(original, choice, text));
        if (pruner.target().filter(target -> !target.isFolder()).isPresent()) {
            listener.info("the old ids of the tokens, by their new ids, are in the metadata of the model: "
                    + Provenance.KEPT_TOKENS);
        }
        listener.info("%,d of %,d tokens stay".formatted(kept.after(), kept.before()));
        Path folder = TemporaryFolder.create(settings.calibration().workFolder(), "vocabulary");
        try {
            Reduced reduced = clock.timed(
                    "reduce-vocabulary",
                    () -> reduced(original, kept, choice.required().cardinality(), folder, runtime));
            Optional<VocabularyText> rows = text.map(given -> clock.timed(
                    "encode-text",
                    () -> VocabularyText.of(
                            given,
                            kept,
                            original.tokenizer,
                            reduced.folder.resolve(ReducedFolder.TOKENIZER),
                            listener)));
            PruneReport report = rest(original, reduced, rows, folder, runtime);
            return ModelCard.deliver(whole(report, original, reduced, rows, text, runtime), pruner, listener);
        } finally {
            FileTree.delete(folder);
        }
    }

    private Original original(OnnxRuntime runtime) {
        Path file = pruner.input().model();
        Model model = clock.timed("import", () -> ModelReader.read(file, listener));
        inputs.add(ModelFolder.weightFiles(model.graph()));
        Structure structure = clock.timed("infer-dimensions", () -> AnalysedModel.of(model, runtime, listener))
                .structure();
        VocabularyTables tables = VocabularyTables.of(structure);
        tables.require();
        Optional<Path> tokenizer = request.tokenizer()
                .or(settings.data()::tokenizer)
                .or(() -> pruner.input().companion(ReducedFolder.TOKENIZER));
        return new Original(model, tables, ParameterCount.of(structure), tokenizer.map(TokenizerFile::read));
    }

    private TokenChoice choice(Original original) {
        int size = original.tables.size();
        original.tokenizer
                .filter(file -> file.size() > size)
                .ifPresent(file -> listener.warn(
                        "the tokenizer has token ids up to %d and the model %d rows; tokens without a row are left out of the new tokenizer"
                                .formatted(file.size() - 1, size)));
        BitSet named = ReducedFolder.named(pruner.input(), size);
        settings.data().bos().ifPresent(id -> named.set(Math.toIntExact(id)));
        return new TokenChoice(size, original.tokenizer, named);
    }

    private Optional<CountedText> text(Original original) {
        if (request.calibration().isEmpty() && request.evaluation().isEmpty()) {
            return Optional.empty();
        }
        return Optional.of(clock.timed(
                "count-tokens",
                () -> CountedText.read(
                        request,
                        pruner.input().model(),
                        ModelInterface.of(original.model.graph()),
                        original.tables.size(),
                        listener)));
    }

    private KeptTokens kept(Original original, TokenChoice choice, Optional<CountedText> text) {
        int size = original.tables.size();
        if (settings.vocabularyKeep().isPresent()) {
            return choice.keeping(KeepFile.read(settings.vocabularyKeep().get(), size, original.tokenizer));
        }
        long[] counts = text.orElseThrow().counts();
        Optional<Budget> target = recipe.target();
        return target.isEmpty() ? choice.rarest(counts, size, 0) : toTarget(original, choice, counts, target.get());
    }

    /** Lets as many tokens go as the target takes: of several structures only tokens that never occur. */
    private KeptTokens toTarget(Original original, TokenChoice choice, long[] counts, Budget budget) {
        double goal = budget.target(original.size());
        double each = original.tables.dimensions().stream()
                .mapToDouble(dimension -> budget.measure(original.count.unit(dimension)))
                .sum();
        int most = 0;
        KeptTokens kept = choice.rarest(counts, 0, 0);
        double excess = budget.measure(original.size()) - goal;
        while (excess > 0 && kept.before() - kept.after() == most) {
            most += (int) Math.max(1, Math.ceil(Math.min(kept.before(), excess / Math.max(1, each))));
            kept = choice.rarest(counts, most, recipe.isAlone() ? Long.MAX_VALUE : 0);
            excess = budget.measure(original.tables.sizeWith(kept)) - goal;
        }
        if (excess > 0 && recipe.isAlone()) {
            double whole = budget.measure(original.size());
            throw new UserException(
                    "the vocabulary alone cannot come to the target: %,d of %,d tokens can go, which prunes %.2f %% of the %s, and %.2f %% were asked for; %,d tokens must stay (special tokens, single bytes or characters, tokens that files name); ask for less, or prune other structures as well"
                            .formatted(
                                    kept.before() - kept.after(),
                                    kept.before(),
                                    100 * (1 - (goal + excess) / whole),
                                    budget.currency().unit(),
                                    100 * (1 - goal / whole),
                                    choice.required().cardinality()));
        }
        return kept;
    }

    private Reduced reduced(Original original, KeptTokens kept, int required, Path folder, OnnxRuntime runtime) {
        ModelFolder input = pruner.input();
        Path home = folder.resolve("model");
        Path place = home.resolve(input.home().relativize(input.model().toAbsolutePath()));
        try {
            Files.createDirectories(place.getParent());
        } catch (IOException e) {
            throw new UserException("folder " + home + " cannot be made: " + FileFailure.reason(e), e);
        }
        Model model = Provenance.withVocabulary(original.tables.reduced(kept), kept.before(), kept.ids());
        ModelWriter.write(model, place, original.model.externalData());
        new ReducedFolder(input, original.tokenizer, kept, original.tables.sizes(kept), listener)
                .write(home, ModelFolder.weightFiles(original.model.graph()));
        writeAdapters(original, kept, place);
        return new Reduced(home, place, kept, required, verified(original, kept, place, runtime));
    }

    /** Writes the adapters beside the model for the model with the kept tokens. */
    private void writeAdapters(Original original, KeptTokens kept, Path place) {
        for (Path file : pruner.input().adapters()) {
            try {
                Map<String, Tensor> tensors = new LinkedHashMap<>();
                AdapterFile.read(file)
                        .forEach((name, tensor) -> tensors.put(name, original.tables.reduced(name, tensor, kept)));
                AdapterFile.write(place.resolveSibling(file.getFileName()), tensors);
            } catch (UserException e) {
                listener.warn("the adapter " + file + " does not fit the model and is left out: " + e.getMessage());
            }
        }
    }

    private OptionalDouble verified(Original original, KeptTokens kept, Path place, OnnxRuntime runtime) {
        Optional<Double> tolerance = recipe.tolerance();
        if (tolerance.isEmpty() || pruner.target().isEmpty()) {
            return OptionalDouble.empty();
        }
        ColumnVerifier.Comparison found = clock.timed(
                "verify-vocabulary",
                () -> new ColumnVerifier(kept.ids(), runtime, settings.seed().orElse(0L))
                        .compare(original.model, place));
        if (!(found.relative() <= tolerance.get())) {
            throw new UserException(
                    "verification failed: logits of the model with fewer tokens differ by %.3g of their scale from the original's (tolerance %.0e); nothing was written, please report this model"
                            .formatted(found.relative(), tolerance.get()));
        }
        return OptionalDouble.of(found.maxAbsDiff());
    }

    /** Runs the rest of the recipe on the model with the kept tokens. */
    private PruneReport rest(
            Original original, Reduced reduced, Optional<VocabularyText> rows, Path folder, OnnxRuntime runtime) {
        Recipe rest = recipe.rest(original.size(), original.tables.sizeWith(reduced.kept));
        if (recipe.isIdle(rest)) {
            listener.warn("the vocabulary alone comes to the target, so no other structure is pruned");
        }
        if (rows.filter(VocabularyText::calibrates).isPresent() && rest.has("calibrate")) {
            rest = rest.with("calibrate", "seq-len", Integer.toString(rows.get().length()));
        }
        DataSettings data = rows.map(given -> given.settings(settings.data(), folder))
                .orElseGet(() -> settings.data().withoutFiles(reduced.kept::newId));
        boolean whole = !pruner.input().model().equals(settings.model());
        Pruner pruning = pruner.with(whole ? reduced.folder : reduced.place, RecipeSettings.settled(rest), data);
        return new PruneRun(pruning, listener).on(runtime);
    }

    /** The report of the rest, compared with the original. */
    private PruneReport whole(
            PruneReport rest,
            Original original,
            Reduced reduced,
            Optional<VocabularyText> rows,
            Optional<CountedText> text,
            OnnxRuntime runtime) {
        Optional<CalibrationData> data = rest.evaluations().data();
        List<long[]> heldOut = rows.map(VocabularyText::before)
                .orElseGet(() -> data.map(CalibrationData::heldOut).orElse(List.of()).stream()
                        .map(row -> Arrays.stream(row).map(reduced.kept::oldId).toArray())
                        .toList());
        Optional<Evaluation> after = rest.evaluations().after();
        Optional<Evaluation> before = after.map(found -> evaluated(heldOut, runtime));
        Map<String, Integer> sizes = new LinkedHashMap<>();
        original.tables.dimensions().forEach(dimension -> sizes.put(dimension.name(), dimension.size()));
        List<PassClock.PassTime> times = new ArrayList<>(clock.times());
        times.addAll(rest.effort().passes());
        return new PruneReport(
                rest.state(),
                new PruneReport.Sizes(
                        original.size(), rest.sizes().after(), rest.sizes().gone(), recipe.target(), Optional.empty()),
                rest.emission(),
                new PruneReport.Evaluations(
                        data.map(found ->
                                text.map(given -> named(found, given.data())).orElse(found)),
                        before,
                        after,
                        rest.evaluations().similarity()),
                new PruneReport.Effort(times, ProcessMemory.peakResidentBytes()),
                Optional.of(new VocabularyReport(
                        reduced.kept.before(),
                        reduced.kept.after(),
                        reduced.required,
                        sizes,
                        rows.flatMap(given -> given.heldOut(before, after)),
                        reduced.difference)),
                rest.seed());
    }

    /** The data of the rest under the names of the files that the user gave. */
    private static CalibrationData named(CalibrationData rest, CalibrationData given) {
        return new CalibrationData(rest.rows(), rest.heldOut(), given.sources(), rest.calibrates());
    }

    private Evaluation evaluated(List<long[]> rows, OnnxRuntime runtime) {
        return clock.timed("evaluate-before", () -> {
            try (CausalLm model = CausalLm.open(runtime, pruner.input().model(), listener)) {
                return Evaluator.evaluate(model, rows, OptionalInt.of(EvalOptions.DEFAULT_PROMPT), listener);
            }
        });
    }
}
