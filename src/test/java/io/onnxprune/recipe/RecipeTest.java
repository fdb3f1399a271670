// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.Importance;
import io.onnxprune.plan.Magnitude;
import io.onnxprune.plan.Measurements;
import io.onnxprune.plan.PositionImportance;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.RandomImportance;
import io.onnxprune.plan.Taylor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

class RecipeTest {
    private static final Path PASSES = Path.of("passes");

    @TempDir
    private Path folder;

    private static final String GOOD = """
            version: 1
            name: mine
            passes:
              - {pass: score, metric: random}
              - pass: allocate
                prune: [heads, hidden]
                round-to: 32
              - pass: rewrite
            """;

    @Test
    void passesComeInOrderWithTheirValuesAndDefaults() {
        Recipe recipe = read(GOOD);

        assertThat(recipe.name()).isEqualTo("mine");
        assertThat(recipe.passes())
                .extracting(Pass::kind)
                .containsExactly(PassKind.SCORE, PassKind.ALLOCATE, PassKind.REWRITE);
        Pass allocate = recipe.pass(PassKind.ALLOCATE);
        assertThat(allocate.words("prune")).containsExactly("heads", "hidden");
        assertThat(allocate.integer("round-to")).isEqualTo(32);
        assertThat(allocate.word("scope")).isEqualTo("local");
        assertThat(allocate.number("ratio")).isEqualTo(0.2);
        assertThat(allocate.words("protect")).isEmpty();
        assertThat(allocate.isGiven("round-to")).isTrue();
        assertThat(allocate.isGiven("ratio")).isFalse();
        assertThat(recipe.pass(PassKind.REWRITE).flag("norm-correction")).isTrue();
        assertThat(recipe.pass(PassKind.VERIFY)).isNull();
    }

    @Test
    void theCommandLineOverrides() {
        Recipe recipe = read(GOOD)
                .with(PassKind.ALLOCATE, "prune", "ffn,layers")
                .with(PassKind.ALLOCATE, "ratio", "0.5")
                .without(PassKind.REWRITE);

        assertThat(recipe.pass(PassKind.ALLOCATE).words("prune")).containsExactly("ffn", "layers");
        assertThat(recipe.pass(PassKind.ALLOCATE).number("ratio")).isEqualTo(0.5);
        assertThat(recipe.pass(PassKind.ALLOCATE).integer("round-to")).isEqualTo(32);
        assertThat(recipe.pass(PassKind.REWRITE)).isNull();
        assertThatThrownBy(() -> recipe.with(PassKind.ALLOCATE, "scope", "locale"))
                .isInstanceOf(UsageException.class)
                .hasMessage("scope must be one of local, global, not \"locale\"; did you mean \"local\"?");
        assertThatThrownBy(() -> recipe.with(PassKind.SCORE, "nrom", "l1"))
                .isInstanceOf(UsageException.class)
                .hasMessage("pass score has no option \"nrom\"; did you mean \"norm\"?");
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
        version: 1                 | verison: 1                | 1:1: a recipe has no key "verison"; did you mean "version"?
        version: 1                 | version: 2                | 1:10: version 2 is not known, this program reads 1
        name: mine                 | # none                    | 1:1: the key "name" is missing
        name: mine                 | name: [a]                 | 2:7: name must be a single value, not a list
        name: mine                 | version: 1                | 2:1: the key "version" is there twice
        pass: allocate             | pass: alocate             | 5:11: there is no pass "alocate", only calibrate, score, allocate, compensate, refit, correct, recover, sparsify, rewrite, verify; did you mean "allocate"?
        metric: random             | metric: randm             | 4:27: metric must be one of magnitude, random, taylor, obs, wanda, flap, block-influence, position, not "randm"; did you mean "random"?
        [heads, hidden]            | [heads, hiden]            | 6:20: prune must be one of
        [heads, hidden]            | {a: b}                    | 6:12: prune must be a single value, not a map
        round-to: 32               | roundto: 32               | 7:5: pass allocate has no key "roundto"; did you mean "round-to"?
        round-to: 32               | round-to: 0               | 7:15: round-to must be a whole number of at least 1, not "0"
        round-to: 32               | round-to: 1.5             | 7:15: round-to must be a whole number, not "1.5"
        round-to: 32               | ratio: -1                 | 7:12: ratio must be a number of at least 0.0, not "-1"
        round-to: 32               | ratio: nan                | 7:12: ratio must be a number, not "nan"
        pass: rewrite              | {pass: rewrite, norm-correction: maybe} | 8:38: norm-correction must be true or false, not "maybe"
        {pass: score, metric: random} | {pass: verify}         | 4:12: pass verify needs a pass rewrite or sparsify before it
        {pass: score, metric: random} | score                  | 4:5: a pass must be a map of keys and values, not "score"
        {pass: score, metric: random} | {pass: score           | 5:9: not YAML
        """)
    void whatIsWrongIsSaidWithItsPlace(String part, String replacement, String message) {
        assertThat(GOOD).contains(part);
        assertThatThrownBy(() -> read(GOOD.replace(part, replacement)))
                .isInstanceOf(UsageException.class)
                .hasMessageStartingWith(folder.resolve("recipe.yaml") + ":")
                .hasMessageContaining(message);
    }

    @Test
    void emptyFilesAndMissingFilesAreReported() {
        assertThatThrownBy(() -> read("")).isInstanceOf(UsageException.class).hasMessageContaining("is empty");
        assertThatThrownBy(() -> read("version: 1\nname: a\npasses: []"))
                .isInstanceOf(UsageException.class)
                .hasMessageContaining(":3:9: passes is empty");
        assertThatThrownBy(() -> Recipe.read(folder.resolve("absent.yaml")))
                .isInstanceOf(UserException.class)
                .isNotInstanceOf(UsageException.class)
                .hasMessageContaining("absent.yaml");
    }

    static List<String> files() throws IOException {
        try (Stream<Path> files = Files.list(PASSES)) {
            return files.map(file -> file.getFileName().toString())
                    .filter(file -> file.endsWith(".yaml"))
                    .map(file -> file.replace(".yaml", ""))
                    .sorted()
                    .toList();
        }
    }

    @ParameterizedTest
    @MethodSource("files")
    void bundledRecipesAreValid(String name) {
        Recipe recipe = Recipe.bundled(name);

        assertThat(recipe).isEqualTo(Recipe.read(PASSES.resolve(name + ".yaml")));
        assertThat(recipe.name()).isEqualTo(name);
        assertThat(recipe.description()).isNotBlank();
    }

    @Test
    void unknownMethodsListTheBundledOnes() throws IOException {
        assertThat(Recipe.bundledNames()).isEqualTo(files()).contains("magnitude", "random");
        assertThatThrownBy(() -> Recipe.bundled("magnitud"))
                .isInstanceOf(UsageException.class)
                .hasMessageContaining(
                        "there is no method \"magnitud\", only " + String.join(", ", Recipe.bundledNames()))
                .hasMessageEndingWith("did you mean \"magnitude\"?");
    }

    @Test
    void passesTurnIntoWhatTheyStandFor() {
        Recipe recipe = read(GOOD).with(PassKind.SCORE, "seed", "5");
        Budget budget = PlanPasses.budget(recipe.pass(PassKind.ALLOCATE)
                .with("layout", "uniform")
                .with("protect", "ffn.0, heads.*")
                .with("skip-last", "1"));

        assertThat(budget)
                .isEqualTo(Budget.ofRatio(PruneSet.parse(List.of("heads", "hidden")), 0.2)
                        .withLayout(Budget.Layout.UNIFORM)
                        .withRounding(32, 1)
                        .withProtection(List.of("ffn.0", "heads.*"), 0, 1));
        assertThat(importance(recipe, "random")).isInstanceOf(RandomImportance.class);
        assertThat(importance(recipe, "magnitude")).isInstanceOf(Magnitude.class);
        assertThat(importance(recipe, "taylor")).isInstanceOf(Taylor.class);
        assertThat(importance(recipe, "position")).isInstanceOf(PositionImportance.class);
    }

    private static Importance importance(Recipe recipe, String metric) {
        Pass score = recipe.pass(PassKind.SCORE).with("metric", metric);
        return PlanPasses.importance(score, PruneSet.standard(), 1, new Measurements(null, null, null));
    }

    @Test
    void layersToLeaveScaleWithDepth() {
        Pass allocate = Recipe.bundled("llm-pruner").pass(PassKind.ALLOCATE);
        Budget budget = PlanPasses.budget(allocate);

        assertThat(budget.skipFirst().in(32)).isEqualTo(4);
        assertThat(budget.skipLast().in(32)).isEqualTo(2);
        assertThatThrownBy(() -> allocate.with("skip-first", "101%"))
                .isInstanceOf(UsageException.class)
                .hasMessage("skip-first must be a whole number of at least 0 or a percentage of layers, not \"101%\"");
        assertThatThrownBy(() -> allocate.with("skip-first", "some")).isInstanceOf(UsageException.class);
    }

    @Test
    void everyDefaultIsValid() {
        for (PassKind kind : PassKind.values()) {
            for (PassOption option : kind.options()) {
                if (option.hasFallback()) {
                    option.check(option.fallback());
                }
            }
        }
    }

    /** When this fails, copy the text that it expects into passes/README.md. */
    @Test
    void theReadmeListsEveryPassAndRecipe() throws IOException {
        String readme = Files.readString(PASSES.resolve("README.md"));

        assertThat(readme).endsWith("## Passes\n\n" + PassKind.markdown());
        assertThat(files()).allSatisfy(name -> assertThat(readme).contains("| `" + name + "` |"));
    }

    private Recipe read(String text) {
        Path file = folder.resolve("recipe.yaml");
        try {
            return Recipe.read(Files.writeString(file, text));
        } catch (IOException e) {
            throw new java.io.UncheckedIOException(e);
        }
    }
}
