// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.diag.Claim;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Fingerprint;
import io.onnxprune.diag.InputFiles;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.PassClock;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.emit.Emitter;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.OutputTarget;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.eval.Example;
import io.onnxprune.eval.Perplexity;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.measure.AnalysedModel;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.plan.Plan;
import io.onnxprune.recover.AdapterFile;
import io.onnxprune.recover.Recovery;
import io.onnxprune.recover.Recovery.Learned;
import io.onnxprune.recover.TrainingOptions;
import io.onnxprune.recover.TrainingReport;
import io.onnxprune.recover.TrainingRows;
import io.onnxprune.rewrite.AdapterInputs;
import io.onnxprune.rewrite.AdapterInputs.Names;
import io.onnxprune.rewrite.Slicer;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.SideInputs;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.stream.Stream;

/** One run of a {@link Recoverer}: trains, and writes the model again with other weights or with adapters beside it. */
final class RecoverRun {
    /** Weights and adapters of half precision are rounded when they are written. */
    private static final double TOLERANCE = 5e-3;

    private final Recoverer.Builder job;
    private final ModelFolder input;
    private final OutputTarget target;
    private final TrainingOptions options;
    private final OnnxRuntime runtime;
    private final Log log;
    private final PassClock clock;
    private final InputFiles inputs;

    RecoverRun(Recoverer recoverer, OnnxRuntime runtime, Log log) {
        this.job = recoverer.job();
        this.input = recoverer.input();
        this.target = recoverer.target();
        this.options = job.options();
        this.runtime = runtime;
        this.log = log;
        this.clock = new PassClock(log);
        this.inputs = clock.timed("hash", () -> InputFiles.of(recoverer.files().inputs()));
    }

    Recoverer.Report run() {
        return inputs.guard(this::trained);
    }

    private Recoverer.Report trained() {
        runtime.options().precision().requireGradients("training");
        runtime.requireTraining();
        job.artifacts.ifPresent(RecoverRun::create);
        Path file = input.model();
        Model model = clock.timed("import", () -> ModelReader.read(file));
        Optional<Model> teacher = job.teacher.map(ModelReader::read);
        List<String> weights = clock.timed("hash", () -> hashes(file, model, teacher));
        Structure structure = clock.timed("infer-dimensions", () -> AnalysedModel.of(model, runtime, log))
                .structure();
        TrainingRows data = clock.timed("data", () -> data(file));
        try (Claim claim = claim(weights, data)) {
            Path folder = job.workFolder().resolve(claim.name());
            try {
                return inputs.guard(() -> train(structure, data, teacher, folder));
            } catch (InputFiles.Changed e) {
                // What was trained on two contents is of no use to a later run.
                if (Files.isDirectory(folder)) {
                    Recovery.discard(folder);
                }
                throw e;
            }
        }
    }

    private Recoverer.Report train(Structure structure, TrainingRows data, Optional<Model> teacher, Path folder) {
        Recovery.Result result = clock.timed(
                "train",
                () -> Recovery.run(
                        structure,
                        data,
                        new Recovery.Setup(teacher, options, !job.keepAdapters, folder, job.resume),
                        runtime,
                        log));
        inputs.requireSameStamps();
        Plan plan = Plan.keepAll(inputs.hash(input.model()));
        Emitter.Emission emission = job.keepAdapters
                ? beside(structure, plan, result, data, folder)
                : merged(structure, plan, result, data, folder);
        job.artifacts.ifPresent(target -> copy(folder, target));
        Recovery.discard(folder);
        return new Recoverer.Report(TrainingReport.of(result, data), emission);
    }

    private Emitter.Emission merged(
            Structure structure, Plan plan, Recovery.Result result, TrainingRows data, Path folder) {
        Model trained =
                clock.timed("merge", () -> Slicer.slice(structure, plan.keep(structure), result.merged(folder)));
        return emit(
                request(trained, structure, plan), Map.of(), staged -> check(staged, Optional.empty(), result, data));
    }

    /** The model with inputs for adapters, and what was learned in a file. */
    private Emitter.Emission beside(
            Structure structure, Plan plan, Recovery.Result result, TrainingRows data, Path folder) {
        AdapterInputs room = AdapterInputs.of(
                structure, result.adapters().stream().map(Learned::place).toList());
        Map<String, Tensor> contents = new LinkedHashMap<>();
        for (Learned learned : result.adapters()) {
            Names names = Objects.requireNonNull(room.inputs().get(learned.place()), "an adapter without inputs");
            contents.put(names.down(), rounded(learned.down(), names));
            contents.put(names.up(), rounded(learned.up(), names));
        }
        String name = target.adapterName(AdapterFile.EXTENSION);
        Path adapter = folder.resolve(name);
        AdapterFile.write(adapter, contents);
        return emit(
                request(room.model(), structure, plan),
                Map.of(name, adapter),
                staged -> check(staged, Optional.of(adapter), result, data));
    }

    private static Tensor rounded(Tensor learned, Names names) {
        return Tensor.ofFloats(names.dtype(), learned.shape(), learned.toFloats());
    }

    private Emitter.Emission emit(Emitter.Request request, Map<String, Path> beside, Consumer<Path> check) {
        return clock.timed("emit", () -> {
            try (Emitter.Staged staged = Emitter.stage(request, beside, log)) {
                check.accept(staged.model());
                inputs.requireUnchanged();
                return staged.commit();
            }
        });
    }

    private Emitter.Request request(Model model, Structure structure, Plan plan) {
        return new Emitter.Request(model, structure, plan, input, target, job.externalData);
    }

    /** The hashes of the model's files and the teacher's. */
    private List<String> hashes(Path file, Model model, Optional<Model> teacher) {
        List<Path> files = new ArrayList<>(List.of(file));
        files.addAll(ModelFolder.weightFiles(model.graph()));
        job.teacher.ifPresent(files::add);
        teacher.ifPresent(found -> files.addAll(ModelFolder.weightFiles(found.graph())));
        inputs.add(files);
        return files.stream().map(inputs::hash).toList();
    }

    /** The name of a folder of its own for each training: what decides how it goes is in the name. */
    private Claim claim(List<String> weights, TrainingRows data) {
        Path work = job.workFolder();
        Claim claim = Claim.of(
                work, "recover", key(weights, data), name -> !job.resume || Files.isDirectory(work.resolve(name)));
        boolean exists = Files.isDirectory(work.resolve(claim.name()));
        if (job.resume && !exists && !claim.isFirst()) {
            claim.close();
            throw new UserException("such a training goes on in another process, with its checkpoints in " + work
                    + "; wait for its end, or leave out --resume");
        }
        if (job.resume && !exists) {
            log.warn("there is no training of this model, on these data and with these options, to resume in " + work
                    + "; the run starts from the beginning");
        }
        if (!claim.isFirst()) {
            log.info("such a training goes on in another process, so this one has a folder of its own");
        }
        return claim;
    }

    private String key(List<String> weights, TrainingRows data) {
        List<Example> all =
                Stream.concat(data.rows().stream(), data.heldOut().stream()).toList();
        List<Object> parts = List.of(
                weights,
                options,
                runtime.options().precision(),
                job.keepAdapters,
                data.rows().size(),
                all.stream().map(Example::first).toList());
        return Fingerprint.of(parts, all.stream().map(Example::tokens).toList());
    }

    private static void create(Path folder) {
        try {
            Files.createDirectories(folder);
        } catch (IOException e) {
            throw new UserException("cannot write to " + folder + ": " + FileFailure.reason(e), e);
        }
    }

    /** The graphs and the checkpoint that ONNX Runtime's training API begins with. */
    private static void copy(Path folder, Path target) {
        try {
            for (Path file : Recovery.artifacts(folder)) {
                Files.copy(file, target.resolve(file.getFileName()), StandardCopyOption.REPLACE_EXISTING);
            }
        } catch (IOException e) {
            throw new UserException("cannot write to " + target + ": " + FileFailure.reason(e), e);
        }
    }

    /** What was written is to be as good as what was trained. */
    private void check(Path staged, Optional<Path> adapter, Recovery.Result result, TrainingRows data) {
        try (CausalLm model = CausalLm.open(runtime, staged, adapter, SideInputs.NONE, log)) {
            double found = Perplexity.ofExamples(model, data.heldOut(), log).nll();
            if (!(Math.abs(found - result.best()) <= TOLERANCE * Math.max(1, result.best()))) {
                throw new UserException(String.format(
                        Locale.ROOT,
                        "the model with what was learned has a held-out loss of %.5f, but %.5f was trained; nothing was"
                                + " written, please report this model",
                        found,
                        result.best()));
            }
        }
    }

    private TrainingRows data(Path file) {
        long vocabulary;
        TrainingRows rows;
        try (CausalLm model = CausalLm.open(runtime, file, log)) {
            vocabulary = model.vocabulary();
            rows = TrainingRows.read(
                    new TrainingRows.Source(job.data, job.evaluation, job.tokenizer, job.length), model, file, log);
        }
        job.teacher.ifPresent(teacher -> requireVocabulary(teacher, vocabulary));
        return rows;
    }

    private void requireVocabulary(Path teacher, long vocabulary) {
        long other;
        try (CausalLm model = CausalLm.open(runtime, teacher, log)) {
            other = model.vocabulary();
        }
        if (other != vocabulary) {
            throw new UserException(String.format(
                    Locale.ROOT,
                    "the teacher %s predicts %,d tokens and the model %,d; --distill takes one of the same vocabulary, such as"
                            + " the model before pruning",
                    teacher,
                    other,
                    vocabulary));
        }
    }
}
