// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.TimeUnit;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/**
 * A run that is killed at any moment leaves nothing half-written under the name of its output, and goes on to the same bytes.
 * {@code -Dkills=20} kills twenty runs, {@code -Dkills.seed=7} at other moments.
 */
@Tag("ort")
@Tag("slow")
class KillAtRandomTest {
    private static final String CARD = "README.md";
    private static final int KILLS = Integer.getInteger("kills", 5);
    private static final long SEED = Long.getLong("kills.seed", 1);

    @TempDir
    private Path folder;

    private Process start(Path place, boolean resume) throws IOException {
        Path out = Files.createDirectories(place).resolve("out");
        List<String> command = Cli.command(
                Cli.testModel("llama-gqa-d").getParent().toString(),
                "-o",
                out.toString(),
                "--method",
                "slimgpt",
                "--calibration",
                Cli.tokens(folder).toString(),
                "--samples",
                "8",
                "--threads",
                "1",
                "--work-dir",
                place.resolve("work").toString());
        if (resume) {
            command.add("--resume");
        }
        return new ProcessBuilder(command)
                .redirectOutput(ProcessBuilder.Redirect.DISCARD)
                .redirectError(place.resolve("err").toFile())
                .start();
    }

    private void finish(Path place, boolean resume) throws IOException, InterruptedException {
        assertThat(start(place, resume).waitFor())
                .as(Files.readString(place.resolve("err")))
                .isZero();
    }

    /** The files under their final names, which are not hidden. */
    private static List<Path> visible(Path out) throws IOException {
        if (!Files.exists(out)) {
            return List.of();
        }
        try (Stream<Path> files = Files.list(out)) {
            return files.filter(file -> !file.getFileName().toString().startsWith("."))
                    .filter(file -> !file.endsWith(CARD))
                    .toList();
        }
    }

    /** What is in the output but for the model card, which holds speeds and the command. */
    private static Map<String, Integer> model(Path place) throws IOException {
        Map<String, Integer> contents = Cli.contents(place.resolve("out"));
        assertThat(contents.remove(CARD)).isNotNull();
        return contents;
    }

    @Test
    void everyMomentIsSafe() throws IOException, InterruptedException {
        Path whole = folder.resolve("whole");
        long begin = System.nanoTime();
        finish(whole, false);
        long duration = System.nanoTime() - begin;
        Map<String, Integer> expected = model(whole);
        Random random = new Random(SEED);

        for (int kill = 1; kill <= KILLS; kill++) {
            Path place = folder.resolve("run-" + kill);
            long moment = (long) (random.nextDouble() * duration);
            Process process = start(place, false);
            process.waitFor(moment, TimeUnit.NANOSECONDS);
            process.destroyForcibly().waitFor();

            String when = "kill %d of %d after %d ms".formatted(kill, KILLS, moment / 1_000_000);
            for (Path file : visible(place.resolve("out"))) {
                assertThat(Files.mismatch(file, whole.resolve("out").resolve(file.getFileName())))
                        .as(when + ": " + file.getFileName())
                        .isEqualTo(-1);
            }
            finish(place, true);
            assertThat(model(place)).as(when).isEqualTo(expected);
            assertThat(visible(place.resolve("work"))).as(when).isEmpty();
        }
    }
}
