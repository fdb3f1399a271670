// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.dims.Structure;
import io.onnxprune.plan.Consumers;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.recipe.Recipe;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

@Tag("ort")
class ForecastTest {
    private static final Structure STRUCTURE = TestModels.structure("stories-llama");
    private static final Consumers CONSUMERS = Consumers.of(STRUCTURE);

    @TempDir
    private Path folder;

    private final RecordedLog log = new RecordedLog();

    private Forecast forecast(int steps, long tokens, String... passes) throws IOException {
        Path file = Files.writeString(
                folder.resolve("recipe.yaml"), "version: 1\nname: mine\npasses:\n  - " + String.join("\n  - ", passes));
        return new Forecast(Recipe.read(file), STRUCTURE, CONSUMERS, PruneSet.standard(), steps, tokens, log);
    }

    /** Six layers of four squares of 128 and three products of 128 by 344, and the logits of 2048 tokens. */
    @Test
    void operationsAreCounted() throws IOException {
        double products = CONSUMERS.all().stream()
                .mapToDouble(each -> (double) each.inputs() * each.outputs())
                .sum();
        Forecast taylor = forecast(3, 1000, "{pass: score, metric: taylor}", "{pass: allocate}", "{pass: rewrite}");
        assertThat(taylor.begin(0, 1e9)).isCloseTo(3 * 8 * products * 1000 / 1e9, within(1e-9));
        assertThat(taylor.begin(2, 1e9)).isCloseTo(8 * products * 1000 / 1e9, within(1e-9));

        Forecast obs =
                forecast(1, 1000, "{pass: score, metric: obs, curvature: loss}", "{pass: allocate}", "{pass: rewrite}");
        double moments = 6 * 2 * 1000 * (128.0 * 128 + 344 * 344 + 2 * 128 * 128);
        double removal = 6 * (removal(128, 128) + removal(344, 128));
        assertThat(obs.begin(0, 1e9)).isCloseTo((6 * products * 1000 + moments + removal) / 1e9, within(1e-9));
        Forecast refitted = forecast(
                1,
                1000,
                "{pass: score, metric: obs, curvature: loss}",
                "{pass: allocate}",
                "{pass: compensate}",
                "{pass: refit}",
                "{pass: correct}",
                "{pass: rewrite}");
        assertThat(refitted.begin(0, 1e9)).isGreaterThan(2 * obs.begin(0, 1e9));
    }

    private static double removal(double n, double m) {
        return 3 * n * n * n + 2 * n * m * (n + m);
    }

    @Test
    void onlyLongRunsAreAnnounced() throws IOException {
        Forecast forecast = forecast(
                4,
                1000,
                "{pass: score, metric: obs, curvature: loss}",
                "{pass: allocate}",
                "{pass: compensate, update: kronecker}",
                "{pass: rewrite}");
        forecast.begin(0, 1e12);
        forecast.done(1);
        assertThat(log.lines()).isEmpty();

        forecast.begin(1, 1e8);
        assertThat(log.lines())
                .containsExactly(
                        "info: 3 steps of about 2 min, about 5 min in all; matrices of the widest product take 5 MB of"
                                + " memory beside --memory, statistics and new weights 8 MB of disk");
    }

    @Test
    void timesAreRound() {
        assertThat(Forecast.time(0.01)).isEqualTo("1 s");
        assertThat(Forecast.time(99)).isEqualTo("99 s");
        assertThat(Forecast.time(150)).isEqualTo("3 min");
        assertThat(Forecast.time(9000)).isEqualTo("2.5 h");
    }
}
