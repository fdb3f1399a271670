// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recipe;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.compensate.CorrectionObjective;
import io.onnxprune.compensate.Selection;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.method.ImportanceMetric;
import io.onnxprune.method.LeastSquaresUpdate;
import io.onnxprune.method.MagnitudeMetric;
import io.onnxprune.method.PositionMetric;
import io.onnxprune.method.RandomMetric;
import io.onnxprune.method.Sparsifier;
import io.onnxprune.method.TaylorMetric;
import io.onnxprune.method.WeightUpdate;
import io.onnxprune.option.Extensions;
import io.onnxprune.option.OptionSet;
import io.onnxprune.option.OptionSpec;
import io.onnxprune.option.Part;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.Scheduled;
import io.onnxprune.passes.AllocatePass;
import io.onnxprune.passes.CompensatePass;
import io.onnxprune.passes.ScorePass;
import io.onnxprune.plan.Budget;
import io.onnxprune.plan.PruneSet;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

class RecipeTest {
    private static final Path PASSES = Path.of("passes");

    @TempDir
    private Path folder;

    private static final String GOOD = """
            version: 2
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
        assertThat(recipe.passes()).extracting(Pass::partName).containsExactly("score", "allocate", "rewrite");
        PassStep step = recipe.first("allocate").orElseThrow();
        Budget budget = budget(step);
        assertThat(budget.prune()).isEqualTo(PruneSet.parse(List.of("heads", "hidden")));
        assertThat(budget.roundTo()).isEqualTo(32);
        assertThat(budget.scope()).isEqualTo(Budget.Scope.LOCAL);
        assertThat(budget.amount()).isEqualTo(0.2);
        assertThat(budget.protect()).isEmpty();
        assertThat(step.isGiven("round-to")).isTrue();
        assertThat(step.isGiven("ratio")).isFalse();
        assertThat(((AllocatePass) step.pass()).normCorrection()).isTrue();
        assertThat(recipe.has("verify")).isFalse();
    }

    private static Budget budget(PassStep allocate) {
        return ((AllocatePass) allocate.pass()).budget();
    }

    @Test
    void theCommandLineOverrides() {
        Recipe recipe = read(GOOD)
                .with("allocate", "prune", "ffn,layers")
                .with("allocate", "ratio", "0.5")
                .without("rewrite");

        Budget budget = budget(recipe.first("allocate").orElseThrow());
        assertThat(budget.prune()).isEqualTo(PruneSet.parse(List.of("ffn", "layers")));
        assertThat(budget.amount()).isEqualTo(0.5);
        assertThat(budget.roundTo()).isEqualTo(32);
        assertThat(recipe.has("rewrite")).isFalse();
        assertThatThrownBy(() -> recipe.with("allocate", "scope", "locale"))
                .isInstanceOf(UsageException.class)
                .hasMessage("scope must be one of local, global, not \"locale\"; did you mean \"local\"?");
        assertThatThrownBy(() -> recipe.with("score", "sed", "1"))
                .isInstanceOf(UsageException.class)
                .hasMessage("pass score has no option \"sed\"; did you mean \"seed\"?");
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
        version: 2                 | verison: 2                | 1:1: a recipe has no key "verison"; did you mean "version"?
        version: 2                 | version: 3                | 1:10: version 3 is not known, this program reads 2
        version: 2                 | version: 1                | 1:10: version 1 is not known, this program reads 2; recipes of version 1 ran their passes in a fixed order
        name: mine                 | # none                    | 1:1: the key "name" is missing
        name: mine                 | name: [a]                 | 2:7: name must be a single value, not a list
        name: mine                 | version: 2                | 2:1: the key "version" is there twice
        pass: allocate             | pass: alocate             | 5:11: there is no pass "alocate", only calibrate, add-biases, rotate, score, gates, allocate, search, apply-plan, prune-layerwise, compensate, refit, correct, recover, sparsify, rewrite, emit, verify; did you mean "allocate"?
        metric: random             | metric: randm             | 4:27: metric must be one of magnitude, random, taylor, obs, wanda, flap, block-influence, position, reap, not "randm"; did you mean "random"?
        [heads, hidden]            | [heads, hiden]            | 6:20: prune must be one of
        [heads, hidden]            | {a: b}                    | 6:12: prune must be a single value, not a map
        round-to: 32               | roundto: 32               | 7:5: pass allocate has no key "roundto"; did you mean "round-to"?
        round-to: 32               | round-to: 0               | 7:15: round-to must be a whole number of at least 1, not "0"
        round-to: 32               | round-to: 1.5             | 7:15: round-to must be a whole number, not "1.5"
        round-to: 32               | ratio: -1                 | 7:12: ratio must be a number of at least 0.0, not "-1"
        round-to: 32               | ratio: nan                | 7:12: ratio must be a number, not "nan"
        round-to: 32               | norm-correction: maybe    | 7:22: norm-correction must be true or false, not "maybe"
        round-to: 32               | ratio: 1                  | 7:12: ratio must be a number less than 1, not "1"
        round-to: 32               | skip-first: some          | 7:17: skip-first must be a whole number of at least 0 or a percentage of layers, not "some"
        round-to: 32               | first-ratio: 0.1          | 5:5: first-ratio has no effect in schedule uniform
        {pass: score, metric: random} | {pass: verify}         | 4:5: pass verify needs the emitted file; put a pass emit before it
        {pass: score, metric: random} | {pass: calibrate}      | 5:5: pass allocate needs scores of the model as it is; put a pass score before it
        {pass: score, metric: random} | {pass: score, metric: magnitude, seed: 1} | 4:38: pass score has no key "seed"; only metric random takes it
        pass: rewrite              | {pass: rewrite, norm-correction: true} | 8:21: pass rewrite has no key "norm-correction"; norm-correction is an option of allocate
        round-to: 32               | steps: 3                  | 7:5: pass allocate has no key "steps"; the steps of a block are said by a repeat around its passes
        {pass: score, metric: random} | {pass: score, metric: obs, sequential: true} | 4:32: pass score has no key "sequential"; choosing block by block is a pass of its own behind allocate
        {pass: score, metric: random} | {pass: score, metric: obs, rule: alone}      | 4:38: rule "alone": the rule is called independent now
        {pass: score, metric: random} | {repeat: {passes: []}}                       | 4:14: repeat takes steps or step-ratio, one of them
        {pass: score, metric: random} | {repeat: {steps: 0, passes: []}}             | 4:22: steps must be a whole number of at least 1, not "0"
        {pass: score, metric: random} | {repeat: {steps: 2, passes: []}}             | 4:14: repeat has no passes
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

    @ParameterizedTest
    @ValueSource(strings = {"[", "{a: ", "- ", "? "})
    void deepRecipesAreRefused(String level) throws IOException {
        Path file = Files.writeString(folder.resolve("deep.yaml"), level.repeat(50_000));

        assertThatThrownBy(() -> Recipe.read(file, Extensions.BUILT_IN))
                .isInstanceOf(UsageException.class)
                .hasMessageContaining("deep.yaml:1:")
                .hasMessageContaining("a recipe nests at most 50 lists and maps");
    }

    @Test
    void emptyFilesAndMissingFilesAreReported() {
        assertThatThrownBy(() -> read("")).isInstanceOf(UsageException.class).hasMessageContaining("is empty");
        assertThatThrownBy(() -> read("version: 2\nname: a\npasses: []"))
                .isInstanceOf(UsageException.class)
                .hasMessageContaining(":3:9: passes is empty");
        assertThatThrownBy(() -> Recipe.read(folder.resolve("absent.yaml"), Extensions.BUILT_IN))
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

        assertThat(recipe.passes())
                .isEqualTo(Recipe.read(PASSES.resolve(name + ".yaml"), Extensions.BUILT_IN)
                        .passes());
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
    void optionsBecomeTypedValues() {
        PassStep allocate = read(GOOD)
                .first("allocate")
                .orElseThrow()
                .with("layout", "uniform")
                .with("protect", "ffn.0, heads.*")
                .with("skip-last", "1");

        assertThat(budget(allocate))
                .isEqualTo(Budget.ofRatio(PruneSet.parse(List.of("heads", "hidden")), 0.2)
                        .withLayout(Budget.Layout.UNIFORM)
                        .withRounding(32, 1)
                        .withProtection(List.of("ffn.0", "heads.*"), 0, 1));
        assertThat(score("random")).isEqualTo(new ScorePass(new RandomMetric(OptionalLong.empty())));
        assertThat(score("magnitude")).isEqualTo(new ScorePass(new MagnitudeMetric()));
        assertThat(score("taylor")).isEqualTo(new ScorePass(new TaylorMetric()));
        assertThat(score("position")).isEqualTo(new ScorePass(new PositionMetric()));
    }

    private static Pass score(String metric) {
        return PassStep.of("score", Map.of("metric", metric), Extensions.BUILT_IN)
                .pass();
    }

    @Test
    void layersToLeaveScaleWithDepth() {
        PassStep allocate = Recipe.bundled("llm-pruner").first("allocate").orElseThrow();

        assertThat(budget(allocate).skipFirst().in(32)).isEqualTo(4);
        assertThat(budget(allocate).skipLast().in(32)).isEqualTo(2);
        assertThatThrownBy(() -> allocate.with("skip-first", "101%"))
                .isInstanceOf(UsageException.class)
                .hasMessage("skip-first must be a whole number of at least 0 or a percentage of layers, not \"101%\"");
    }

    /** The default of every option of every part is a value that the option takes. */
    @Test
    void everyDefaultIsValid() {
        List<Class<? extends Part>> kinds = List.of(
                Pass.class,
                ImportanceMetric.class,
                Selection.class,
                WeightUpdate.class,
                CorrectionObjective.class,
                Sparsifier.class);
        for (Class<? extends Part> kind : kinds) {
            assertThat(Extensions.BUILT_IN.parts(kind)).isNotEmpty();
            Extensions.BUILT_IN.parts(kind).values().forEach(type -> {
                for (OptionSpec option : new OptionSet(Extensions.BUILT_IN).options(type, Map.of())) {
                    if (!option.fallback().isEmpty()) {
                        option.check(option.fallback());
                    }
                    assertThat(option.summary()).as(type + " " + option.key()).isNotBlank();
                }
            });
        }
    }

    @Test
    void repeatBlocksAreUnrolled() {
        Recipe recipe = read("""
                version: 2
                name: mine
                passes:
                  - repeat:
                      step-ratio: 0.05
                      passes:
                        - {pass: score, metric: random}
                        - {pass: allocate}
                  - {pass: rewrite}
                """);

        List<Scheduled> schedule = recipe.schedule(repeat -> repeat.count(0.15));

        assertThat(schedule)
                .extracting(Scheduled::label)
                .containsExactly(
                        "score of step 1 of 3",
                        "allocate of step 1 of 3",
                        "score of step 2 of 3",
                        "allocate of step 2 of 3",
                        "score of step 3 of 3",
                        "allocate of step 3 of 3",
                        "rewrite");
        assertThat(recipe.withSteps(1).schedule(repeat -> repeat.count(0.15))).hasSize(3);
        assertThat(read(GOOD).withSteps(2).schedule(repeat -> repeat.count(0)))
                .extracting(scheduled -> scheduled.pass().partName())
                .containsExactly("score", "allocate", "score", "allocate", "rewrite");
    }

    @Test
    void aPlanTakesThePlaceOfPassesThatMakeOne() {
        assertThat(names(Recipe.bundled("auto").withPlan(Path.of("p.json"))))
                .containsExactly(
                        "calibrate",
                        "rotate",
                        "apply-plan",
                        "compensate",
                        "refit",
                        "correct",
                        "rewrite",
                        "emit",
                        "verify");
        assertThat(names(Recipe.bundled("gates").withPlan(Path.of("p.json"))))
                .isEqualTo(names(Recipe.bundled("auto").withPlan(Path.of("p.json"))));
        Recipe layerwise = Recipe.bundled("slimgpt").withPlan(Path.of("p.json"));
        assertThat(names(layerwise))
                .containsExactly("calibrate", "apply-plan", "compensate", "rewrite", "emit", "verify");
        layerwise.check();
        assertThat(layerwise.first("compensate").orElseThrow().pass())
                .isEqualTo(new CompensatePass(new LeastSquaresUpdate()));
    }

    @Test
    void addedPassesTakeTheirUsualPlace() {
        assertThat(names(Recipe.bundled("llm-surgeon").adding("correct").adding("refit")))
                .containsExactly(
                        "calibrate",
                        "score",
                        "allocate",
                        "compensate",
                        "refit",
                        "correct",
                        "rewrite",
                        "emit",
                        "verify");
    }

    private static List<String> names(Recipe recipe) {
        return recipe.passes().stream().map(Pass::partName).toList();
    }

    /** When this fails, copy the text that it expects into passes/README.md. */
    @Test
    void theReadmeListsEveryPassAndRecipe() throws IOException {
        String readme = Files.readString(PASSES.resolve("README.md"));

        assertThat(readme).endsWith("## Passes\n\n" + Catalog.markdown(Extensions.BUILT_IN));
        assertThat(files()).allSatisfy(name -> assertThat(readme).contains("| `" + name + "` |"));
    }

    private Recipe read(String text) {
        Path file = folder.resolve("recipe.yaml");
        try {
            return Recipe.read(Files.writeString(file, text), Extensions.BUILT_IN);
        } catch (IOException e) {
            throw new java.io.UncheckedIOException(e);
        }
    }
}
