// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.recipe.Pass;
import io.onnxprune.recipe.PassKind;
import io.onnxprune.recipe.Recipe;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Test;

class ModelGradientsTest {
    private static final Pass SCORE = Recipe.bundled("llm-pruner").pass(PassKind.SCORE);

    private static String key(Plan plan, Pass score) {
        return ModelGradients.key(plan, score, PruneSet.standard());
    }

    /** A run that goes on must not take over scores of another kind, or of another step. */
    @Test
    void runsThatScoreOtherwiseHaveOtherKeys() {
        Plan whole = Plan.keepAll("a");
        Plan step = new Plan("a", Map.of("ffn.0", new int[] {0, 2}), null, null);
        Plan other = new Plan("a", Map.of("ffn.0", new int[] {0, 3}), null, null);

        assertThat(Set.of(
                        key(whole, SCORE),
                        key(whole, SCORE.with("importance", "vector")),
                        key(Plan.keepAll("b"), SCORE),
                        key(step, SCORE),
                        key(other, SCORE),
                        key(new Plan("a", Map.of(), new int[] {0}, null), SCORE)))
                .hasSize(6);
        assertThat(key(new Plan("a", Map.of("ffn.0", new int[] {0, 2}), null, null), SCORE))
                .isEqualTo(key(step, SCORE));
    }
}
