// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
class InspectTest {
    /** A plain decoder, one with two branches, and one with quantised weights. */
    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "gpt2-g-merged", "llama-g16-e-int4"})
    void tables(String name) throws IOException {
        Cli.Run run = Cli.run("inspect", Path.of("testmodels", name)).succeeded();

        assertThat(run.err()).isEmpty();
        Golden.assertSame(Path.of("src", "test", "resources", "inspect", name + ".txt"), run.out());
    }

    @Test
    void groupsNameEveryMember() {
        String out = Cli.run("inspect", Cli.testModel("llama-gqa-d"), "--groups")
                .succeeded()
                .out();

        assertThat(out)
                .contains("kv_heads.0 (4 units)")
                .contains("axis 1 = kv_heads.0 × ")
                .contains("read by node \"");
    }

    @Test
    void initializersValuesAndNodesAreExplained() {
        Path model = Cli.testModel("llama-gqa-d");

        assertThat(Cli.run("inspect", model, "--explain", "model.embed_tokens.weight")
                        .succeeded()
                        .out())
                .contains("axis 0 = vocabulary", "axis 1 = hidden", "hidden: 64 units", "tied at node \"");
        assertThat(Cli.run("inspect", model, "--explain", "logits").succeeded().out())
                .contains("axis 0 = dynamic", "pinned: an axis of graph output \"logits\"");
        assertThat(Cli.run("inspect", model, "--explain", "/lm_head/MatMul")
                        .succeeded()
                        .out())
                .contains("logits");
    }
}
