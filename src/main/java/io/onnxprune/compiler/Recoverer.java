package io.onnxprune.compiler;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.emit.Emitter;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.OutputTarget;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.eval.Evaluator;
import io.onnxprune.eval.TokenData;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PlanFile;
import io.onnxprune.recover.Look;
import io.onnxprune.recover.Recovery;
import io.onnxprune.recover.TrainingOptions;
import io.onnxprune.rewrite.Slicer;
import io.onnxprune.runtime.OnnxRuntime;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;

/** Trains a model and writes it again with other weights. */
public final class Recoverer {
    /** Held-out rows are this share of the data where no file of their own is given, */
    private static final int HELD_OUT_SHARE = 20;
    /** and so many at most. */
    private static final int HELD_OUT_ROWS = 64;

    /** Weights of half precision are rounded when they are written. */
    private static final double TOLERANCE = 5e-3;

    /**
     * What is asked for.
     *
     * @param data rows or text to train on
     * @param evaluation held-out data; otherwise some rows of {@code data} are left out
     * @param tokenizer for text; by default the one beside the model
     * @param teacher a model whose predictions are learned
     * @param length tokens of a row
     * @param resume whether to go on where an earlier training like this one was stopped
     * @param artifacts takes a copy of what the training session was made of
     * @param workFolder for graphs and checkpoints
     */
    public record Job(
            ModelFolder input,
            OutputTarget target,
            Path data,
            Optional<Path> evaluation,
            Optional<Path> tokenizer,
            Optional<Path> teacher,
            int length,
            TrainingOptions options,
            boolean externalData,
            boolean resume,
            Optional<Path> artifacts,
            Path workFolder) {}

    /**
     * What came of it.
     *
     * @param rows how many were trained on
     * @param heldOut how many were not
     */
    public record Report(Recovery.Result result, int rows, int heldOut, Emitter.Emission emission) {
        /** The content of the JSON report, as docs/json.md says. */
        public Map<String, Object> toJson() {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("trained_parameters", result.trained());
            json.put("rows", rows);
            json.put("held_out_rows", heldOut);
            List<Map<String, Object>> curve = new ArrayList<>();
            for (Look look : result.curve()) {
                Map<String, Object> point = new LinkedHashMap<>();
                point.put("step", look.step());
                point.put("loss", Double.isNaN(look.loss()) ? null : look.loss());
                point.put("held_out_loss", look.heldOut());
                point.put("learning_rate", look.learningRate());
                point.put("tokens_per_second", look.tokensPerSecond());
                curve.add(point);
            }
            json.put("curve", curve);
            json.put("held_out_loss", result.best());
            json.put("held_out_perplexity", Math.exp(result.best()));
            json.put("output", emission.files().get(0).toString());
            return json;
        }
    }

    private Recoverer() {}

    /**
     * Does what {@code job} asks.
     *
     * @throws UserException if it cannot be done; nothing is left at the target then
     */
    public static Report run(Job job, OnnxRuntime runtime, Log log) {
        PassClock clock = new PassClock(log);
        Path file = job.input().model();
        Model model = clock.timed("import", () -> ModelReader.read(file));
        Structure structure = clock.timed("infer-dimensions", () -> AnalysedModel.of(model, runtime, log))
                .structure();
        Optional<Path> tokenizer = job.tokenizer().or(() -> Evaluator.tokenizerBeside(file));
        long vocabulary = clock.timed("open-model", () -> vocabulary(file, runtime, log));
        List<long[]> rows = clock.timed("data", () -> rows(job.data(), tokenizer, job.length(), vocabulary));
        List<long[]> heldOut;
        if (job.evaluation().isPresent()) {
            heldOut = rows(job.evaluation().get(), tokenizer, job.length(), vocabulary);
        } else {
            int count = Math.min(HELD_OUT_ROWS, rows.size() / HELD_OUT_SHARE);
            if (count == 0) {
                throw new UserException(job.data() + " has " + rows.size() + " rows of " + job.length()
                        + " tokens, too few to hold some out; name others by --eval");
            }
            heldOut = rows.subList(rows.size() - count, rows.size());
            rows = rows.subList(0, rows.size() - count);
        }
        List<long[]> training = rows;
        List<long[]> held = heldOut;
        String hash = clock.timed("hash", () -> PlanFile.hash(file));
        Path folder = folder(job, hash, training, held);
        if (job.resume() && !Files.isDirectory(folder)) {
            log.info("nothing to resume in " + job.workFolder() + "; training begins anew");
        }
        Recovery.Result result = clock.timed(
                "train",
                () -> Recovery.run(
                        structure,
                        training,
                        held,
                        job.teacher().map(ModelReader::read),
                        job.options(),
                        folder,
                        job.resume(),
                        runtime,
                        log));
        Plan plan = Plan.keepAll(hash);
        Model trained = clock.timed("merge", () -> Slicer.slice(structure, plan.keep(structure), result.updates()));
        Emitter.Emission emission = clock.timed(
                "emit",
                () -> Emitter.emit(
                        trained,
                        structure,
                        plan,
                        job.input(),
                        job.target(),
                        job.externalData(),
                        staged -> check(staged, result, held, runtime, log),
                        log));
        job.artifacts().ifPresent(target -> copy(folder, target));
        Recovery.discard(folder);
        return new Report(result, rows.size(), heldOut.size(), emission);
    }

    /** A folder of its own for each kind of training: what decides how it goes is in the name. */
    private static Path folder(Job job, String hash, List<long[]> rows, List<long[]> heldOut) {
        List<Object> parts = List.of(hash, job.teacher().map(PlanFile::hash).orElse(""), job.options(), rows.size());
        List<long[]> all = new ArrayList<>(rows);
        all.addAll(heldOut);
        return job.workFolder().resolve("recover-" + StepNotes.key(parts, all));
    }

    /** The graphs and the checkpoint that ONNX Runtime's training API begins with. */
    private static void copy(Path folder, Path target) {
        try {
            Files.createDirectories(target);
            for (Path file : Recovery.artifacts(folder)) {
                Files.copy(file, target.resolve(file.getFileName()), StandardCopyOption.REPLACE_EXISTING);
            }
        } catch (IOException e) {
            throw new UserException("cannot write to " + target + ": " + FileFailure.reason(e), e);
        }
    }

    /** The file that was written is to be as good as what was trained. */
    private static void check(Path staged, Recovery.Result result, List<long[]> heldOut, OnnxRuntime runtime, Log log) {
        try (CausalLm model = CausalLm.open(runtime, staged, log)) {
            double found =
                    Evaluator.evaluate(model, heldOut, OptionalInt.empty(), log).nll();
            if (!(Math.abs(found - result.best()) <= TOLERANCE * Math.max(1, result.best()))) {
                throw new UserException(String.format(
                        Locale.ROOT,
                        "the model with the merged weights has a held-out loss of %.5f, but %.5f was trained; nothing was"
                                + " written, please report this model",
                        found,
                        result.best()));
            }
        }
    }

    private static long vocabulary(Path file, OnnxRuntime runtime, Log log) {
        try (CausalLm model = CausalLm.open(runtime, file, log)) {
            return model.vocabulary();
        }
    }

    private static List<long[]> rows(Path file, Optional<Path> tokenizer, int length, long vocabulary) {
        TokenData data = TokenData.read(file, tokenizer, OptionalInt.of(length));
        data.requireVocabulary(vocabulary);
        List<long[]> whole =
                data.rows().stream().filter(row -> row.length == length).toList();
        if (whole.isEmpty()) {
            throw new UserException(
                    String.format(Locale.ROOT, "%s has no row of %,d tokens; give a smaller --seq-len", file, length));
        }
        return whole;
    }
}
