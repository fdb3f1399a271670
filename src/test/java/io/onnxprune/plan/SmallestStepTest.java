// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** A run that would prune nothing, though it is asked to, fails and says what would be enough. */
@Tag("ort")
class SmallestStepTest {
    private static final Pattern ENOUGH = Pattern.compile("ask for at least ([0-9.]+) %");

    private final Structure structure = TestModels.structure("llama-gqa-d");
    private final Scores scores = new RandomImportance(1).score(structure, Log.NONE);

    private Allocation allocate(Budget budget) {
        Allocation allocation = Allocation.of(structure, scores, budget, "", Log.NONE);
        allocation.requireSmaller(structure, scores, budget);
        return allocation;
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
            heads        | 0.002  | one unit of kv_heads.0 with 2.3
            layers       | 0.02   | layer 0 with 23.1 %
            blocks       | 0.01   | block 0 with
            heads,ffn    | 0.0002 | one unit of ffn.0 with 0.144 %
            layers,heads | 0.002  | one unit of kv_heads.0 with 2.3
            """)
    void lessThanTheSmallestStep(String prune, double ratio, String step) {
        Budget budget = Budget.ofRatio(PruneSet.parse(List.of(prune.split(","))), ratio);

        assertThatThrownBy(() -> allocate(budget))
                .isInstanceOf(UserException.class)
                .hasMessageStartingWith("nothing would be pruned: ")
                .hasMessageContaining("the smallest step is " + step)
                .satisfies(failure -> assertThat(
                                allocate(budget.withTarget(Budget.Target.ratio(enough(failure.getMessage()))))
                                        .ratio())
                        .isPositive());
    }

    private static double enough(String message) {
        Matcher share = ENOUGH.matcher(message);
        assertThat(share.find()).as(message).isTrue();
        return Double.parseDouble(share.group(1)) / 100;
    }

    @Test
    void roundingMakesStepsLarger() {
        Budget budget = Budget.ofRatio(PruneSet.parse(List.of("ffn")), 0.002).withRounding(32, 1);

        assertThatThrownBy(() -> allocate(budget))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("32 units of ffn.0 with ");
    }

    /** Before anything is measured, unless it depends on the scores. */
    @Test
    void itIsFoundBeforeTheRun() {
        Budget heads = Budget.ofRatio(PruneSet.parse(List.of("heads")), 0.002);

        assertThatThrownBy(() -> Allocation.check(structure, heads)).hasMessageStartingWith("nothing would be pruned");
    }

    @Test
    void parametersToKeep() {
        long dense = ParameterCount.of(structure).dense().parameters();
        Budget budget = Budget.ofRatio(PruneSet.standard(), 0).withTarget(Budget.Target.parameters((double) dense - 3));

        assertThatThrownBy(() -> allocate(budget)).hasMessageContaining("of the %,d parameters is asked for", dense);
        assertThat(allocate(budget.withTarget(Budget.Target.parameters((double) dense)))
                        .ratio())
                .isZero();
    }

    @Test
    void aDimensionThatAMethodCannotPruneNamesItsReason() {
        Structure experts = TestModels.structure("mixtral-a");
        Budget budget = LinearLayers.of(experts)
                .restrict(Budget.ofRatio(PruneSet.standard(), 0.4), experts, false, "flap", Log.NONE);

        assertThat(budget.protect()).isEmpty();
        assertThatThrownBy(() -> Allocation.check(experts, budget))
                .isInstanceOf(UserException.class)
                .hasMessageContainingAll(
                        "because ffn.0 is not pruned by flap (node \"", "where a plain floating-point matrix is needed")
                .hasMessageNotContaining("protected");
    }
}
