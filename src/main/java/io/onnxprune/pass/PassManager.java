// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Fingerprint;
import io.onnxprune.diag.InputFiles;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.PassClock;
import io.onnxprune.diag.UserException;
import io.onnxprune.diag.WholeFile;
import io.onnxprune.emit.Emitter;
import io.onnxprune.eval.CalibrationData;
import io.onnxprune.ir.GraphChecker;
import io.onnxprune.ir.GraphPrinter;
import io.onnxprune.ir.Model;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Optional;
import java.util.Set;
import java.util.regex.Pattern;

/**
 * Runs passes in their order. It alone checks order and requirements, verifies the graph after each pass, writes it as text,
 * measures times, tells of progress, saves checkpoints and goes on from them, and gives an emitted file its name at the end.
 */
public final class PassManager {
    private static final Pattern DUMP = Pattern.compile("\\d\\d+-.*\\.txt");

    private final List<Scheduled> schedule;
    private final PassContext context;
    private final Instruments instruments;
    private final Log log;
    private final Optional<SharedSteps> shared;
    private int dumped;
    private Optional<Model> lastChecked = Optional.empty();

    /**
     * What watches a run.
     *
     * @param clock measures times
     * @param listener is told which pass runs
     * @param dump folder for the model as text after each pass
     * @param inputs are to stay as they are
     * @param weights SHA-256 of the files with weights outside the model file
     */
    public record Instruments(
            PassClock clock, RunListener listener, Optional<Path> dump, InputFiles inputs, List<String> weights) {}

    /**
     * The end of a run.
     *
     * @param state after the last pass
     * @param emission the files that were written; empty if no pass emitted any
     */
    public record Result(PruningState state, Optional<Emitter.Emission> emission) {}

    /** A run of {@code schedule}, which {@link Requirements} has checked. */
    public PassManager(List<Scheduled> schedule, PassContext context, Instruments instruments) {
        this(schedule, context, instruments, Optional.empty());
    }

    /** A run of {@code schedule} that shares what it can with other runs. */
    public PassManager(
            List<Scheduled> schedule, PassContext context, Instruments instruments, Optional<SharedSteps> shared) {
        this.schedule = List.copyOf(schedule);
        this.context = context;
        this.instruments = instruments;
        this.log = once(context.log());
        this.shared = shared;
    }

    /** A log that gives each warning once: passes of later steps have the same reasons as those of the first. */
    private static Log once(Log log) {
        Set<String> told = new HashSet<>();
        return new Log.Forwarding(log) {
            @Override
            public void warn(String message) {
                if (told.add(message)) {
                    super.warn(message);
                }
            }
        };
    }

    /**
     * Lets every pass refuse what cannot work, before data are read.
     *
     * @throws UserException with the reason
     */
    public void check(DenseModel dense) {
        for (int i = 0; i < schedule.size(); i++) {
            Pass pass = schedule.get(i).pass();
            if (pass.differentiates()) {
                context.runtime().options().precision().requireGradients("pass " + pass.partName());
            }
            pass.check(dense, at(context, i, Optional.empty()));
        }
    }

    /**
     * Runs all passes.
     *
     * @throws UserException if one cannot do its work; nothing is left at the output then
     */
    public Result run(PruningState start, RunData data) {
        Optional<CheckpointStore> store = store(start, data);
        try {
            return instruments.inputs().guard(() -> run(start, context.withData(data), store));
        } catch (InputFiles.Changed e) {
            // A checkpoint may hold what came of two contents, so no run is to go on from it.
            store.ifPresent(CheckpointStore::remove);
            throw e;
        }
    }

    private Result run(PruningState start, PassContext run, Optional<CheckpointStore> store) {
        Optional<Emitter.Staged> staged = Optional.empty();
        try {
            Optional<CheckpointStore.Saved> saved = begun(start, run, store);
            PruningState state = saved.map(CheckpointStore.Saved::state).orElse(start);
            int done = saved.map(CheckpointStore.Saved::done).orElse(0);
            Forecast forecast = Forecast.of(
                    schedule, start.dense(), context.prune(), run.data().tokens(), log);
            forecast.begin(done, () -> Speed.of(context.runtime()));
            for (int i = done; i < schedule.size(); i++) {
                Scheduled scheduled = schedule.get(i);
                if (done > 0 && scheduled.pass().isRepeatedOnResume()) {
                    continue;
                }
                announce(i, done);
                state = step(state, scheduled, contextOf(run, i, store));
                Optional<Emitter.Staged> now = state.output().file();
                if (!staged.equals(now)) {
                    staged.ifPresent(Emitter.Staged::close);
                }
                staged = now;
                instruments.inputs().requireSameStamps();
                if (store.isPresent() && isSaved(scheduled)) {
                    store.get().save(new CheckpointStore.Saved(i + 1, state));
                }
                if (shared.isPresent() && isSaved(scheduled)) {
                    shared.get().passed(i + 1, state);
                }
                forecast.done(i);
            }
            instruments.inputs().requireUnchanged();
            Optional<Emitter.Emission> emission = staged.map(Emitter.Staged::commit);
            store.ifPresent(CheckpointStore::remove);
            return new Result(state.settled(), emission);
        } finally {
            staged.ifPresent(Emitter.Staged::close);
            store.ifPresent(CheckpointStore::close);
        }
    }

    /** How far a run is that goes on from a checkpoint, or from a state that another run came to. */
    private Optional<CheckpointStore.Saved> begun(
            PruningState start, PassContext run, Optional<CheckpointStore> store) {
        if (isResumed(store)) {
            return Optional.of(resumed(store.get(), repeated(start, run)));
        }
        Optional<CheckpointStore.Saved> found =
                shared.flatMap(states -> states.begin(schedule, start.dense(), () -> repeated(start, run)));
        found.ifPresent(saved -> log.debug("%d of %d passes, up to %s, are as in an earlier run, so its state is taken"
                .formatted(
                        saved.done(),
                        schedule.size(),
                        schedule.get(saved.done() - 1).label())));
        return found;
    }

    private PassContext at(PassContext run, int index, Optional<CheckpointStore> store) {
        return run.at(new PassContext.Position(schedule, index, store.map(files -> files.within(index))))
                .withLog(log);
    }

    /** In later steps of a block, information about runs repeats what the first step said. */
    private PassContext contextOf(PassContext run, int index, Optional<CheckpointStore> store) {
        if (schedule.get(index).step() > 1) {
            run.statistics().quiet();
        }
        return at(run, index, store);
    }

    private void announce(int index, int first) {
        Scheduled scheduled = schedule.get(index);
        boolean begins = scheduled.steps() > 1
                && (index == first
                        || schedule.get(index - 1).step() != scheduled.step()
                        || schedule.get(index - 1).steps() != scheduled.steps());
        if (begins) {
            log.info("step %d of %d".formatted(scheduled.step(), scheduled.steps()));
        }
        log.debug("pass %d of %d: %s".formatted(index + 1, schedule.size(), scheduled.label()));
        instruments.listener().passStarted(scheduled, index + 1, schedule.size());
    }

    private PruningState step(PruningState state, Scheduled scheduled, PassContext here) {
        Pass pass = scheduled.pass();
        boolean usesChoice =
                pass.requires().contains(Fact.CHOICE) || pass.provides().contains(Fact.CHOICE);
        PruningState before = usesChoice ? state : state.settled();
        long begin = System.nanoTime();
        PruningState after = instruments.clock().timed(pass.partName(), () -> {
            PruningState next = pass.run(before, here);
            checkGraph(next, pass);
            return next;
        });
        instruments.listener().passEnded(scheduled, (System.nanoTime() - begin) * 1e-9);
        instruments.dump().ifPresent(folder -> dump(folder, pass.partName(), model(after)));
        return after;
    }

    private static Model model(PruningState state) {
        return state.output()
                .model()
                .orElseGet(() -> state.choice().orElse(state.pruned()).model());
    }

    /** The graph of a pruned state is checked when it is made; that of a rewritten model here. */
    @SuppressWarnings("ReferenceEquality") // an object that was checked need not be checked again
    private void checkGraph(PruningState state, Pass pass) {
        Optional<Model> rewritten = state.output().model();
        rewritten
                .filter(model -> lastChecked.filter(last -> last == model).isEmpty())
                .ifPresent(model -> GraphChecker.check(model, pass.partName()));
        lastChecked = rewritten.or(() -> lastChecked);
    }

    /** Whether a file of this name may be one of those that {@link #dump} writes. */
    public static boolean isDump(String name) {
        return DUMP.matcher(name).matches();
    }

    /** Writes a model as text. */
    public void dump(Path folder, String pass, Model model) {
        Path file = folder.resolve(String.format("%02d-%s.txt", dumped++, pass));
        try {
            Files.createDirectories(folder);
            WholeFile.write(file, GraphPrinter.print(model).getBytes(UTF_8));
        } catch (IOException e) {
            throw new UserException("cannot write " + file + ": " + FileFailure.reason(e), e);
        }
    }

    /** Only runs that measure are worth a checkpoint. */
    private Optional<CheckpointStore> store(PruningState start, RunData data) {
        if (data.tokens() == 0) {
            return Optional.empty();
        }
        List<Object> parts = new ArrayList<>(List.of(start.dense().hash()));
        parts.addAll(instruments.weights());
        for (Scheduled scheduled : schedule) {
            if (isSaved(scheduled) || scheduled.pass().isRepeatedOnResume()) {
                parts.add(scheduled.step() + "/" + scheduled.steps() + ' ' + scheduled.pass());
            }
        }
        parts.add(context.settings().seed());
        parts.add(context.runtime().options().precision());
        List<long[]> rows =
                new ArrayList<>(data.calibration().map(CalibrationData::rows).orElse(List.of()));
        data.training().ifPresent(training -> training.rows().forEach(row -> rows.add(row.tokens())));
        boolean resumes = context.settings().calibration().resume();
        return Optional.of(new CheckpointStore(context.workFolder(), Fingerprint.of(parts, rows), resumes));
    }

    /** Rewriting and what follows is quick and not part of a checkpoint. */
    private static boolean isSaved(Scheduled scheduled) {
        Pass pass = scheduled.pass();
        boolean output = pass.provides().contains(Fact.REWRITTEN)
                || pass.requires().contains(Fact.REWRITTEN)
                || pass.requires().contains(Fact.EMITTED);
        return !output && !pass.isRepeatedOnResume();
    }

    /** The passes whose results are in no checkpoint. */
    private PruningState repeated(PruningState start, PassContext run) {
        PruningState state = start;
        for (int i = 0; i < schedule.size(); i++) {
            if (schedule.get(i).pass().isRepeatedOnResume()) {
                state = step(state, schedule.get(i), contextOf(run, i, Optional.empty()));
            }
        }
        return state;
    }

    /** Whether there is a checkpoint to go on from. A run that starts again removes it. */
    private boolean isResumed(Optional<CheckpointStore> store) {
        boolean asked = context.settings().calibration().resume();
        boolean exists = store.isPresent() && store.get().exists();
        if (asked && exists) {
            return true;
        }
        boolean another = store.filter(CheckpointStore::isBesideAnother).isPresent();
        if (asked && another) {
            throw new UserException("such a run goes on in another process, with its checkpoints in "
                    + context.workFolder() + "; wait for its end, or leave out --resume");
        }
        if (another) {
            log.info("such a run goes on in another process, so this one has checkpoints of its own");
        }
        if (asked) {
            log.info("there is no checkpoint of such a run in " + context.workFolder()
                    + "; the run starts from the beginning");
        }
        if (exists) {
            store.get().remove();
        }
        return false;
    }

    private CheckpointStore.Saved resumed(CheckpointStore store, PruningState state) {
        CheckpointStore.Saved saved = store.load(state);
        Scheduled last = schedule.get(saved.done() - 1);
        log.info("the run goes on: %d of %d passes are done, up to %s"
                .formatted(saved.done(), schedule.size(), last.label()));
        return saved;
    }
}
