// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.algebra.Blas;
import io.onnxprune.api.SweepReport.Point;
import io.onnxprune.api.SweepReport.Size;
import io.onnxprune.diag.CacheFolder;
import io.onnxprune.diag.FileTree;
import io.onnxprune.diag.InputFiles;
import io.onnxprune.diag.TemporaryFolder;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.emit.ModelFolder;
import io.onnxprune.emit.RunFiles;
import io.onnxprune.eval.DataRequest;
import io.onnxprune.pass.Scheduled;
import io.onnxprune.pass.SharedSteps;
import io.onnxprune.runtime.OnnxRuntime;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.math.BigDecimal;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.function.Consumer;
import java.util.stream.Stream;

/**
 * Prunes a model by several methods and ratios, and measures every result:
 * {@code Sweep.builder(model).ratios(ratios).methods(methods).build().run(listener)}. Runs share the rows, the evaluation of the dense
 * model, and the steps that runs of one method have in common; each gives the same model as a run by itself.
 */
public final class Sweep {
    /** Which results are kept. */
    public enum Keep {
        /** All. */
        ALL,
        /** Those that no other one is better than in parameters and perplexity. */
        PARETO,
        /** None: they are only measured. */
        NONE
    }

    private final Builder settings;
    private final List<Run> runs = new ArrayList<>();
    private final Path results;

    /** One run, and where its result goes. */
    private record Run(String method, double ratio, Pruner pruner, Path output) {
        List<Scheduled> schedule(ProgressListener listener) {
            return new RunSetup(pruner, listener).recipe().schedule(repeat -> repeat.count(ratio));
        }
    }

    private Sweep(Builder settings) {
        this.settings = settings;
        if (settings.ratios.isEmpty()) {
            throw new UsageException("no ratios were given; add --ratios, as in 0.1:0.5:0.1 or 0.2,0.3");
        }
        if (settings.output.isEmpty() != (settings.keep == Keep.NONE)) {
            throw new UsageException(
                    settings.output.isEmpty()
                            ? "models are kept in a folder; add -o DIR, or --keep none"
                            : "--keep none writes no models, so -o has no effect; leave it out");
        }
        settings.output.ifPresent(Sweep::requireEmpty);
        results = settings.output.orElseGet(() -> TemporaryFolder.create(workFolder(), "sweep-results"));
        addRuns(settings.change);
        haveOneMeasure();
    }

    private Path workFolder() {
        Pruner.Builder any = Pruner.builder(settings.model);
        settings.change.accept(any);
        return any.calibration().workFolder();
    }

    private void addRuns(Consumer<Pruner.Builder> change) {
        runs.clear();
        for (String method : settings.methods) {
            for (double ratio : settings.ratios) {
                String name = method + '-' + BigDecimal.valueOf(ratio).toPlainString();
                Path output = results.resolve(settings.keep == Keep.NONE ? name + ".onnx" : name);
                Pruner.Builder builder = Pruner.builder(settings.model);
                change.accept(builder);
                builder.method(method).ratio(ratio).output(output);
                if (builder.resumes()) {
                    throw new UsageException("--resume continues one run, and a sweep has several; leave it out");
                }
                runs.add(new Run(method, ratio, builder.build(), output));
            }
        }
    }

    /**
     * Recipes calibrate on rows of different number and length, which would leave other rows to measure perplexity on. So several
     * methods get the largest of what their recipes say.
     */
    private void haveOneMeasure() {
        List<DataRequest> requests = runs.stream()
                .map(run -> new RunSetup(run.pruner, ProgressListener.NONE).request())
                .distinct()
                .toList();
        if (requests.size() > 1) {
            DataSettings.Usual usual = new DataSettings.Usual(
                    requests.stream()
                            .mapToInt(request -> request.samples().orElse(0))
                            .max()
                            .orElseThrow(),
                    requests.stream().mapToInt(DataRequest::usualLength).max().orElseThrow());
            boolean writes = requests.stream().anyMatch(DataRequest::self);
            addRuns(builder -> {
                settings.change.accept(builder);
                builder.data(data -> {
                    data.usual(usual);
                    if (writes) {
                        data.selfCalibration();
                    }
                });
            });
        }
    }

    private static void requireEmpty(Path folder) {
        if (Files.isRegularFile(folder) || folder.toString().endsWith(".onnx")) {
            throw new UsageException("-o " + folder + " is to be a folder for several models; name a folder");
        }
        if (Files.isDirectory(folder)) {
            try (Stream<Path> files = Files.list(folder)) {
                if (files.findAny().isPresent()) {
                    throw new UserException("-o " + folder + " has files in it; name a new or an empty folder");
                }
            } catch (IOException | UncheckedIOException e) {
                throw new UserException("-o " + folder + " cannot be read", e);
            }
        }
    }

    /** Begins to describe a sweep. */
    public static Builder builder(Path model) {
        return new Builder(model);
    }

    /** All files that the sweep reads and writes. */
    public RunFiles files() {
        RunFiles files = new RunFiles().reads(ModelFolder.of(settings.model));
        runs.forEach(run -> files.reads(run.pruner.files().inputs()));
        List<String> names =
                runs.stream().map(run -> run.output.getFileName().toString()).toList();
        settings.output.ifPresent(folder -> files.writesInto("-o", folder, names::contains));
        runs.get(0).pruner.settings().workFolder().ifPresent(folder -> files.worksIn("--work-dir", folder));
        return files;
    }

    /**
     * Does the work. A run that fails is a point with its reason, and the others go on.
     *
     * @throws UserException if the runtime cannot be opened, or an input changes meanwhile
     */
    public SweepReport run(ProgressListener listener) {
        CacheFolder.warning().ifPresent(listener::warn);
        Pruner.Builder first = runs.get(0).pruner.settings();
        Blas.setThreads(first.threads());
        InputFiles inputs = InputFiles.of(List.of());
        try (OnnxRuntime runtime = OnnxRuntime.open(first.runtime())) {
            AlgebraDevice.select(runtime);
            inputs.add(files().inputs());
            return inputs.guard(() -> {
                SweepReport report = all(runtime, listener);
                inputs.requireUnchanged();
                return kept(report, listener);
            });
        } finally {
            if (settings.output.isEmpty()) {
                FileTree.delete(results);
            }
        }
    }

    private SweepReport all(OnnxRuntime runtime, ProgressListener listener) {
        List<Point> points = new ArrayList<>();
        List<Size> dense = new ArrayList<>();
        Optional<SharedRuns> shared = Optional.empty();
        for (String method : settings.methods) {
            List<Run> own =
                    runs.stream().filter(run -> run.method.equals(method)).toList();
            Path folder = TemporaryFolder.create(workFolder(), "sweep-states");
            List<List<Scheduled>> schedules =
                    own.stream().map(run -> run.schedule(ProgressListener.NONE)).toList();
            try (SharedSteps steps = new SharedSteps(folder, schedules)) {
                SharedRuns now = shared.map(runs -> runs.of(steps)).orElseGet(() -> SharedRuns.with(steps));
                for (Run run : own) {
                    listener.info("%s at ratio %s (%d of %d)"
                            .formatted(method, BigDecimal.valueOf(run.ratio), points.size() + 1, runs.size()));
                    points.add(point(run, runtime, listener, now, dense));
                }
                shared = Optional.of(now);
            }
        }
        if (!shared.orElseThrow().haveOneMeasure()) {
            listener.warn(
                    "the methods leave different rows to measure perplexity on, so compare them with care; --eval FILE"
                            + " with --seq-len N measures all on the same rows");
        }
        return new SweepReport(dense.stream().findFirst(), points);
    }

    private static Point point(
            Run run, OnnxRuntime runtime, ProgressListener listener, SharedRuns shared, List<Size> dense) {
        long begin = System.nanoTime();
        try {
            PruneReport report = run.pruner.run(runtime, listener, shared);
            dense.add(new Size(
                    report.sizes().before().parameters(),
                    report.sizes().before().bytes(),
                    report.evaluations().before()));
            Size size = new Size(
                    report.sizes().after().parameters(),
                    report.sizes().after().bytes(),
                    report.evaluations().after());
            Optional<Path> file = report.emission().map(found -> found.files().get(0));
            return new Point(
                    run.method,
                    run.ratio,
                    Optional.of(size),
                    file,
                    Optional.empty(),
                    shared.steps().taken(),
                    (System.nanoTime() - begin) * 1e-9);
        } catch (InputFiles.Changed e) {
            throw e;
        } catch (UserException e) {
            return new Point(
                    run.method,
                    run.ratio,
                    Optional.empty(),
                    Optional.empty(),
                    Optional.of(e.getMessage()),
                    0,
                    (System.nanoTime() - begin) * 1e-9);
        }
    }

    /** Deletes what is not to be kept. */
    private SweepReport kept(SweepReport report, ProgressListener listener) {
        boolean measured = report.points().stream().anyMatch(report::isPareto);
        if (settings.keep == Keep.PARETO && !measured) {
            listener.warn("no perplexity was measured, so no result is better than another and all are kept");
        }
        List<Point> points = new ArrayList<>();
        for (int i = 0; i < runs.size(); i++) {
            Point point = report.points().get(i);
            boolean stays =
                    settings.keep == Keep.ALL || settings.keep == Keep.PARETO && (!measured || report.isPareto(point));
            if (!stays) {
                FileTree.delete(runs.get(i).output);
            }
            points.add(stays ? point : point.withFile(Optional.empty()));
        }
        return new SweepReport(report.dense(), points);
    }

    /** The description of a sweep. Every method returns the builder. */
    public static final class Builder {
        private final Path model;
        private List<Double> ratios = List.of();
        private List<String> methods = List.of(RecipeSettings.DEFAULT_METHOD);
        private Keep keep = Keep.NONE;
        private Optional<Path> output = Optional.empty();
        private Consumer<Pruner.Builder> change = builder -> {};

        private Builder(Path model) {
            this.model = model;
        }

        /**
         * Sets the shares of the dense model's parameters to prune. They run in ascending order, each once.
         *
         * @throws UsageException if one is not between 0 and 1
         */
        public Builder ratios(List<Double> shares) {
            for (double share : shares) {
                if (!(share > 0 && share < 1)) {
                    throw new UsageException("--ratios takes shares of more than 0 and less than 1, not " + share);
                }
            }
            ratios = shares.stream().distinct().sorted().toList();
            return this;
        }

        /** Sets the bundled recipes; {@value RecipeSettings#DEFAULT_METHOD} by default. */
        public Builder methods(List<String> names) {
            if (names.isEmpty()) {
                throw new UsageException("--methods names no method; give one or more, separated by commas");
            }
            methods = names.stream().distinct().toList();
            return this;
        }

        /** Sets which results are kept; {@link Keep#NONE} by default. */
        public Builder keep(Keep which) {
            keep = which;
            return this;
        }

        /** Sets a new folder for the results that are kept; each gets a folder METHOD-RATIO in it. */
        public Builder output(Path folder) {
            output = Optional.of(folder);
            return this;
        }

        /** Changes every run: its data, its runtime and what else it has beside method, ratio and output. */
        public Builder each(Consumer<Pruner.Builder> how) {
            change = how;
            return this;
        }

        /**
         * Checks the description of all runs.
         *
         * @throws UsageException if one cannot be
         * @throws UserException if there is no model, or no place for the results
         */
        public Sweep build() {
            return new Sweep(this);
        }
    }
}
