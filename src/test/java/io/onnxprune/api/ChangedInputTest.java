// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.TokenRows;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.measure.StatisticsProvider;
import io.onnxprune.pass.Scheduled;
import io.onnxprune.runtime.RuntimeOptions;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.FileTime;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Optional;
import java.util.stream.Stream;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** A run whose input changes on the way says which one, and writes nothing. */
@Tag("ort")
class ChangedInputTest {
    /** Its weights are outside the model file. */
    private static final String MODEL = "llama-g16-e-fp32";

    private static final String RECIPE = """
            version: 2
            name: mine
            passes:
              - {pass: calibrate}
              - {pass: score, metric: obs}
              - {pass: allocate, ratio: 0.2}
              - {pass: compensate}
              - {pass: rewrite}
              - {pass: emit}
              - {pass: verify}
            """;

    @TempDir
    private Path folder;

    private Path model;
    private Path rows;

    @BeforeEach
    void inputs() throws IOException {
        model = Files.createDirectories(folder.resolve("model"));
        try (Stream<Path> files = Files.list(TestModels.file(MODEL).getParent())) {
            for (Path file : files.toList()) {
                Files.copy(file, model.resolve(file.getFileName()));
            }
        }
        rows = TokenRows.random(folder, 32);
        Files.copy(rows, folder.resolve("held-out.jsonl"));
        Files.writeString(folder.resolve("recipe.yaml"), RECIPE);
    }

    private Pruner.Builder pruning() {
        return Pruner.builder(model)
                .output(folder.resolve("out"))
                .workFolder(folder.resolve("work"))
                .runtime(RuntimeOptions.cpu(1));
    }

    private Pruner.Builder measuring() {
        return pruning()
                .recipe(settings -> settings.recipe(folder.resolve("recipe.yaml")))
                .data(data -> data.calibration(rows, 1)
                        .evaluation(folder.resolve("held-out.jsonl"))
                        .samples(4)
                        .sequenceLength(32));
    }

    /** What happens to a file during a run. */
    private interface Event {
        void happen() throws IOException;
    }

    private static void happen(Event event) {
        try {
            event.happen();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** Lets something happen when a pass begins, a stage is timed, or a progress display opens. */
    private static final class Watching extends Log.Forwarding implements ProgressListener {
        private final String moment;
        private final Event event;
        private final List<String> begun = new ArrayList<>();
        private boolean happened;

        Watching(String moment, Event event) {
            super(Log.NONE);
            this.moment = moment;
            this.event = event;
        }

        private void at(String reached) {
            if (!happened && reached.startsWith(moment)) {
                happened = true;
                happen(event);
            }
        }

        @Override
        public void passStarted(Scheduled pass, int number, int count) {
            begun.add(pass.pass().partName());
            at(pass.pass().partName());
        }

        @Override
        public void debug(String message) {
            at(message.replaceAll(": .* s$", " is done"));
        }

        @Override
        public Progress progress(String stage, long total) {
            at(stage);
            return super.progress(stage, total);
        }
    }

    private static void flipLastByte(Path file) throws IOException {
        try (RandomAccessFile open = new RandomAccessFile(file.toFile(), "rw")) {
            long last = open.length() - 1;
            open.seek(last);
            int before = open.read();
            open.seek(last);
            open.write(before ^ 1);
        }
    }

    private void assertRefused(ThrowingCallable run, Path changed, String... parts) {
        assertThatThrownBy(run)
                .isInstanceOf(UserException.class)
                .hasMessageContaining("the input " + changed + " was ")
                .hasMessageContaining("during the run")
                .hasMessageContaining("no result was written")
                .hasMessageContaining(String.join("", parts));
        assertThat(folder.resolve("out")).doesNotExist();
        assertThat(folder.resolve("out.onnx")).doesNotExist();
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "model/model.onnx",
                "model/model.onnx.data",
                "model/genai_config.json",
                "rows.jsonl",
                "held-out.jsonl",
                "recipe.yaml"
            })
    void oneChangedByteIsNoticed(String name) throws IOException {
        Path changed = folder.resolve(name);

        assertRefused(
                () -> measuring()
                        .build()
                        .run(TestModels.runtime(), new Watching("verify", () -> flipLastByte(changed))),
                changed);
        // What was measured on two contents is not gone on from.
        try (Stream<Path> left = Files.list(folder.resolve("work"))) {
            assertThat(left.filter(file -> file.getFileName().toString().startsWith("run-")))
                    .isEmpty();
        }
    }

    /** Weights that are changed early are noticed at the next pass, not after hours. */
    @Test
    void aChangeIsNoticedAtTheNextPass() {
        Path weights = model.resolve("model.onnx.data");
        Watching listener = new Watching("score", () -> flipLastByte(weights));

        assertRefused(() -> measuring().build().run(TestModels.runtime(), listener), weights);
        assertThat(listener.begun).containsExactly("calibrate", "score");
    }

    @Test
    void changedPlansAreNoticed() {
        Path plan = folder.resolve("plan.json");
        pruning().dryRun().method("magnitude").planOut(plan).build().run(TestModels.runtime(), ProgressListener.NONE);

        assertRefused(
                () -> pruning()
                        .method("magnitude")
                        .plan(plan)
                        .build()
                        .run(TestModels.runtime(), new Watching("verify", () -> Files.writeString(plan, "{}"))),
                plan);
    }

    @Test
    void changedStatisticsAreNoticed() {
        Path statistics = folder.resolve("statistics.safetensors");
        measuring()
                .dryRun()
                .statistics(new StatisticsProvider.Files(Optional.empty(), Optional.of(statistics)))
                .build()
                .run(TestModels.runtime(), ProgressListener.NONE);

        assertRefused(
                () -> measuring()
                        .statistics(new StatisticsProvider.Files(Optional.of(statistics), Optional.empty()))
                        .build()
                        .run(TestModels.runtime(), new Watching("verify", () -> flipLastByte(statistics))),
                statistics);
    }

    /** A new time is no new content: hours of work are not thrown away for it. */
    @Test
    void touchedInputsAreNoChange() throws IOException {
        Event touch = () -> Files.setLastModifiedTime(
                model.resolve("model.onnx.data"), FileTime.from(Instant.now().plusSeconds(9)));

        assertThatCode(() -> measuring().build().run(TestModels.runtime(), new Watching("rewrite", touch)))
                .doesNotThrowAnyException();
        assertThat(folder.resolve("out").resolve("model.onnx")).exists();
    }

    /** The pages of a mapped model are gone when it is written. */
    @ParameterizedTest
    @ValueSource(strings = {"model.onnx", "model.onnx.data"})
    void shortenedModelsAreOneSentence(String name) {
        Path file = model.resolve(name);
        Event cut = () -> {
            try (RandomAccessFile open = new RandomAccessFile(file.toFile(), "rw")) {
                open.setLength(100);
            }
        };

        assertRefused(
                () -> pruning().method("magnitude").build().run(TestModels.runtime(), new Watching("emit", cut)),
                file,
                " to 100 bytes");
    }

    @ParameterizedTest
    @ValueSource(strings = {"model/model.onnx.data", "rows.jsonl", "held-out.jsonl", "teacher.onnx"})
    void trainingOnChangedInputsIsRefused(String name) throws IOException {
        Path teacher = Files.copy(TestModels.file("llama-gqa-d"), folder.resolve("teacher.onnx"));
        Path changed = folder.resolve(name);

        assertRefused(
                () -> Recoverer.builder(model, rows, folder.resolve("out.onnx"))
                        .evaluation(folder.resolve("held-out.jsonl"))
                        .teacher(name.startsWith("teacher") ? teacher : model)
                        .sequenceLength(8)
                        .training("steps", "1")
                        .workFolder(folder.resolve("work"))
                        .build()
                        .run(TestModels.runtime(), new Watching("train is done", () -> flipLastByte(changed))),
                changed);
        try (Stream<Path> left = Files.list(folder.resolve("work"))) {
            assertThat(left.filter(file -> file.getFileName().toString().startsWith("recover-")))
                    .isEmpty();
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"model/model.onnx.data", "rows.jsonl"})
    void evaluationOfChangedInputsIsRefused(String name) {
        Path changed = folder.resolve(name);

        assertRefused(
                () -> ModelEvaluator.builder(model, rows)
                        .build()
                        .run(TestModels.runtime(), new Watching("latency", () -> flipLastByte(changed))),
                changed);
    }

    @Test
    void inspectionOfChangedModelsIsRefused() {
        Path changed = model.resolve("model.onnx");

        assertRefused(
                () -> Inspector.builder(model)
                        .build()
                        .run(
                                TestModels.runtime(),
                                new Watching(
                                        "traced at", () -> Files.setLastModifiedTime(changed, FileTime.fromMillis(0)))),
                changed);
    }
}
