// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import java.io.IOException;
import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Rows that nothing is solved for decide about refit and corrections. */
@Tag("ort")
class SetAsideTest extends PruningRuns {
    private Path recipe(String refit, String correct) throws IOException {
        return recipe(
                "{pass: calibrate, samples: 2, seq-len: 16}",
                "{pass: score, metric: magnitude}",
                "{pass: allocate, ratio: 0.2}",
                "{pass: refit" + refit + "}",
                "{pass: correct, steps: 2" + correct + "}",
                "{pass: rewrite}",
                "{pass: verify}");
    }

    @Test
    void whatFitsItsOwnRowsAloneIsNotTaken() throws IOException {
        Cli.Run run = run("stories-llama", "--recipe", recipe(", set-aside: 0.5", ", set-aside: 0.5"))
                .succeeded();

        assertThat(run.out()).contains("the residual stream was not refitted: on rows set aside");
        assertThat(report().path("refitted").asInt()).isZero();
        JsonNode correction = report().path("correction");
        assertThat(correction.path("loss_after").asDouble())
                .isLessThanOrEqualTo(correction.path("loss_before").asDouble());
    }

    @Test
    void withoutSuchRowsItIsTaken() throws IOException {
        run("stories-llama", "--recipe", recipe("", "")).succeeded();

        assertThat(report().path("refitted").asInt()).isPositive();
    }

    @Test
    void oneRowCannotBeBoth() throws IOException {
        Cli.Run run =
                run("stories-llama", "--recipe", recipe(", set-aside: 0.5", ""), "--samples", "1", "--correct", "0");

        assertThat(run.err()).contains("give at least two (--samples)");
        assertThat(run.code()).isNotZero();
    }
}
