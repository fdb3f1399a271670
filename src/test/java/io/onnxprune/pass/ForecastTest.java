// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.option.Extensions;
import io.onnxprune.plan.LinearLayer;
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
    private static final DenseModel DENSE = DenseModel.of(
            TestModels.structure("stories-llama").analysis().program().model(),
            TestModels.structure("stories-llama"),
            "");

    @TempDir
    private Path folder;

    private final RecordedLog log = new RecordedLog();

    private Forecast forecast(int steps, long tokens, String... passes) throws IOException {
        Path file = Files.writeString(
                folder.resolve("recipe.yaml"),
                "version: 2\nname: mine\npasses:\n  - {pass: calibrate}\n  - repeat:\n      steps: " + steps
                        + "\n      passes:\n        - " + String.join("\n        - ", passes));
        Recipe recipe = Recipe.read(file, Extensions.BUILT_IN);
        return Forecast.of(recipe.schedule(repeat -> repeat.count(1)), DENSE, PruneSet.standard(), tokens, log);
    }

    /** Six layers of four squares of 128 and three linear layers of 128 by 344, and the logits of 2048 tokens. */
    @Test
    void operationsAreCounted() throws IOException {
        double weights = DENSE.layers().all().stream()
                .mapToDouble(each -> (double) each.inputs() * each.outputs())
                .sum();
        Forecast taylor = forecast(3, 1000, "{pass: score, metric: taylor}", "{pass: allocate}");
        assertThat(taylor.total(0).flops()).isCloseTo(3 * 8 * weights * 1000, within(1.0));
        assertThat(taylor.total(5).flops()).isCloseTo(8 * weights * 1000, within(1.0));

        Forecast obs = forecast(1, 1000, "{pass: score, metric: obs, curvature: loss}", "{pass: allocate}");
        double moments = 6 * 2 * 1000 * (128.0 * 128 + 344 * 344 + 2 * 128 * 128);
        double removal = 6 * (removal(128, 128) + removal(344, 128));
        assertThat(obs.total(0).flops()).isCloseTo(6 * weights * 1000 + moments + removal, within(1.0));
        Forecast refitted = forecast(
                1,
                1000,
                "{pass: score, metric: obs, curvature: loss}",
                "{pass: allocate}",
                "{pass: compensate}",
                "{pass: refit}",
                "{pass: correct}");
        assertThat(refitted.total(0).flops()).isGreaterThan(2 * obs.total(0).flops());
    }

    private static double removal(double n, double m) {
        return 3 * n * n * n + 2 * n * m * (n + m);
    }

    /** What is not measured takes no time worth telling. */
    @Test
    void runsWithoutRowsCostNothing() throws IOException {
        assertThat(forecast(3, 0, "{pass: score, metric: taylor}", "{pass: allocate}")
                        .total(0))
                .isEqualTo(Cost.NONE);
    }

    @Test
    void onlyLongRunsAreAnnounced() throws IOException {
        Forecast forecast = forecast(
                4,
                1000,
                "{pass: score, metric: obs, curvature: loss}",
                "{pass: allocate}",
                "{pass: compensate, update: kronecker}");
        forecast.begin(forecast.total(0), new Speed(1e12, 1e12));
        forecast.begin(0, () -> new Speed(1e12, 1e12));
        forecast.done(3);
        assertThat(log.lines()).isEmpty();

        Cost all = forecast.total(0);
        forecast.begin(all, new Speed(1e8, 1e8));
        assertThat(log.lines())
                .containsExactly("info: 13 passes of about " + Forecast.time(all.flops() / 1e8)
                        + " in all; matrices of the widest linear layer take 5 MB of memory beside --memory, statistics and"
                        + " new weights 8 MB of disk");
        assertThat(widest().inputs()).isEqualTo(344);
    }

    private static LinearLayer widest() {
        return CostModel.of(DENSE, PruneSet.standard(), 1).consumers().stream()
                .reduce((a, b) -> a.inputs() >= b.inputs() ? a : b)
                .orElseThrow();
    }

    /** Work of both kinds takes its own time. */
    @Test
    void modelAndAlgebraHaveTheirOwnSpeed() {
        assertThat(new Speed(100, 10).seconds(new Cost(200, 30, 0, 0))).isEqualTo(5);
    }

    @Test
    void timesAreRound() {
        assertThat(Forecast.time(0.01)).isEqualTo("1 s");
        assertThat(Forecast.time(99)).isEqualTo("99 s");
        assertThat(Forecast.time(150)).isEqualTo("3 min");
        assertThat(Forecast.time(9000)).isEqualTo("2.5 h");
    }
}
