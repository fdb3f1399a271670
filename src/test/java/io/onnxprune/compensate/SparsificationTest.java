// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.SequentialRun;
import io.onnxprune.compensate.Sparsification.Method;
import io.onnxprune.compensate.Sparsification.Request;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.eval.Perplexity;
import io.onnxprune.eval.TokenData;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.LayerSparsifier;
import io.onnxprune.obs.Pattern;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.runtime.Session;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalInt;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
@Tag("slow")
class SparsificationTest {
    private static final Pattern HALF = new Pattern.Unstructured(0.5);
    private static final Pattern TWO_OF_FOUR = new Pattern.Grouped(2, 4);

    @TempDir
    private Path folder;

    private static PrunedState dense(Structure structure) {
        return PrunedState.whole(structure, Plan.keepAll(""));
    }

    private Sparsification run(PrunedState state, Method method, Pattern pattern, Log log) {
        Sparsification editor = new Sparsification(
                state, LinearLayers.of(state.structure()), new Request(method, pattern, 0.01), folder, log);
        SequentialRun.run(Runs.calibrator(state.model(), folder), null, Runs.rows(30), editor);
        return editor;
    }

    /** The linear layers in residual blocks, found by their applications. */
    private static Set<LinearLayer> inBlocks(Structure structure) {
        LinearLayers layers = LinearLayers.of(structure);
        Set<Op> inside = new HashSet<>();
        structure.stream().blocks().forEach(block -> inside.addAll(block.ops()));
        Set<LinearLayer> found = new HashSet<>(layers.all());
        found.removeIf(layer -> layers.applications(layer).stream().noneMatch(inside::contains));
        return found;
    }

    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "llama-gqa-d", "opt-f-a-bert", "gpt2-g-merged", "llama-g16-e-fp16"})
    void everyGroupOfEveryLinearLayerHasItsZeros(String name) {
        Structure structure = TestModels.structure(name);
        for (Method method : Method.values()) {
            Sparsification editor = run(dense(structure), method, TWO_OF_FOUR, Log.NONE);

            List<Value> weights =
                    inBlocks(structure).stream().map(LinearLayer::weight).toList();
            assertThat(editor.updates().keySet()).containsAll(weights);
            assertThat(editor.zeros().matrices()).isEqualTo(weights.size());
            assertThat(editor.zeros().share()).isCloseTo(0.5, within(0.01));
            for (LinearLayer layer : inBlocks(structure)) {
                Tensor sparse = editor.updates().get(layer.weight());
                assertThat(sparse.dtype()).isEqualTo(layer.weight().constant().dtype());
                try (Matrix w = WeightStore.read(sparse, layer.axis());
                        Matrix before = WeightStore.read(layer.weight().constant(), layer.axis())) {
                    boolean changed = false;
                    for (int i = 0; i < w.rows(); i += 4) {
                        for (int j = 0; j < w.columns(); j++) {
                            int zeros = 0;
                            for (int k = i; k < i + 4; k++) {
                                zeros += w.get(k, j) == 0 ? 1 : 0;
                                changed |= w.get(k, j) != 0 && w.get(k, j) != before.get(k, j);
                            }
                            assertThat(zeros).isGreaterThanOrEqualTo(2);
                        }
                    }
                    assertThat(changed).isEqualTo(method == Method.SPARSEGPT);
                }
            }
        }
    }

    /** A bias is one more input that is always 1; Wanda changes none. */
    @ParameterizedTest
    @ValueSource(strings = {"opt-f-a-bert", "gpt2-g-merged"})
    void biasesCompensate(String name) {
        Structure structure = TestModels.structure(name);
        PrunedModel model = Runs.model(dense(structure), folder, Log.NONE);
        Map<Value, Tensor> updates =
                run(dense(structure), Method.SPARSEGPT, TWO_OF_FOUR, Log.NONE).updates();

        assertThat(Runs.checkMeans(model, updates, false)).isPositive();
        assertThat(run(dense(structure), Method.WANDA, TWO_OF_FOUR, Log.NONE).updates())
                .hasSize(inBlocks(structure).size());
    }

    @ParameterizedTest
    @EnumSource(Method.class)
    void theSparsityIsTheRequestedOne(Method method) {
        Structure structure = TestModels.structure("llama-gqa-d");
        Sparsification editor = run(dense(structure), method, new Pattern.Unstructured(0.3), Log.NONE);

        assertThat(editor.zeros().share()).isCloseTo(0.3, within(0.005));
        long weights = editor.updates().keySet().stream()
                .mapToLong(value -> value.constant().elements())
                .sum();
        assertThat(editor.zeros().weights()).isEqualTo(weights);
    }

    @Test
    void prunedUnitsRemainPruned() {
        Structure structure = TestModels.structure("llama-gqa-d");
        Plan plan = Runs.plan(structure, 0.2, "heads", "ffn");
        Sparsification editor = run(PrunedState.of(structure, plan, Map.of()), Method.WANDA, HALF, Log.NONE);
        Model sparse = PrunedState.of(structure, plan, editor.updates()).model();

        assertThat(editor.zeros().weights())
                .isLessThan(inBlocks(structure).stream()
                        .mapToLong(layer -> layer.weight().constant().elements())
                        .sum());
        long left = inBlocks(structure).stream()
                .mapToLong(layer ->
                        sparse.graph().initializers().get(layer.weight().name()).elements())
                .sum();
        assertThat(editor.zeros().weights()).isEqualTo(left);
    }

    /** Sets the weights of the smallest magnitude to zero, without regard to inputs. */
    private static Map<Value, Tensor> magnitude(Structure structure, Path folder) {
        WeightStore store = new WeightStore(folder);
        Map<Value, Tensor> updates = new HashMap<>();
        for (LinearLayer layer : inBlocks(structure)) {
            try (Matrix w = WeightStore.read(layer.weight().constant(), layer.axis());
                    Matrix identity = Matrix.zeros(w.rows(), w.rows())) {
                for (int i = 0; i < w.rows(); i++) {
                    identity.set(i, i, 1);
                }
                try (Matrix sparse = LayerSparsifier.wanda(identity, w, HALF, new Damping(0, 1, "", Log.NONE))) {
                    updates.put(
                            layer.weight(), store.write(sparse, layer.weight().constant(), layer.axis(), layer.node()));
                }
            }
        }
        return updates;
    }

    @Test
    void inputStatisticsAndCompensationLowerTheLoss() {
        Structure structure = TestModels.structure("stories-llama");
        List<long[]> rows = stories("calibration.jsonl", 24);
        List<long[]> heldOut = stories("eval.jsonl", 24);
        Model model = structure.analysis().program().model();
        double dense = perplexity(model, heldOut);
        Map<Method, Double> found = new EnumMap<>(Method.class);
        for (Method method : Method.values()) {
            Sparsification editor = new Sparsification(
                    dense(structure), LinearLayers.of(structure), new Request(method, HALF, 0.01), folder, Log.NONE);
            CalibrationOptions options = new CalibrationOptions(CalibrationOptions.DEFAULT_MEMORY, folder, false);
            Calibrator calibrator = Calibrator.of(model, TestModels.runtime(), options, rows.get(0).length, Log.NONE);
            SequentialRun.run(calibrator, null, rows, editor);
            found.put(method, perplexity(with(structure, editor.updates()), heldOut));
        }
        double magnitude = perplexity(with(structure, magnitude(structure, folder)), heldOut);

        assertThat(found.get(Method.SPARSEGPT)).isBetween(dense, 0.98 * found.get(Method.WANDA));
        assertThat(found.get(Method.WANDA)).isLessThan(magnitude);
    }

    /** Rows of stories like those that the model was trained on. */
    private static List<long[]> stories(String name, int count) {
        Path file = Path.of("..", "shared", "data", "stories", name);
        assumeTrue(Files.exists(file), () -> file + " is not there");
        return TokenData.read(file, Optional.empty(), OptionalInt.empty())
                .rows()
                .subList(0, count);
    }

    private static Model with(Structure structure, Map<Value, Tensor> updates) {
        return PrunedState.of(structure, Plan.keepAll(""), updates).model();
    }

    private static double perplexity(Model model, List<long[]> rows) {
        try (Session session = TestModels.runtime().open(model, false)) {
            return Perplexity.measure(CausalLm.of(session, model.graph()), rows, Log.NONE)
                    .perplexity();
        }
    }

    @Test
    void weightsThatCannotChangeAreKeptWithAWarning() {
        RecordedLog log = new RecordedLog();
        Sparsification editor = run(dense(TestModels.structure("mixtral-a")), Method.WANDA, HALF, log);

        assertThat(editor.updates()).isNotEmpty();
        assertThat(log.warnings())
                .singleElement()
                .asString()
                .matches("\\d+ linear layers of residual blocks keep their weights: node .*");
        assertThatThrownBy(() -> run(dense(TestModels.structure("llama-g16-e-int4")), Method.WANDA, HALF, log))
                .isInstanceOf(UserException.class)
                .hasMessageStartingWith("no weight of this model can become zero: node ")
                .hasMessageContaining("plain floating-point matrix");
    }

    @Test
    void groupsMustDivideTheInputs() {
        assertThatThrownBy(() -> run(
                        dense(TestModels.structure("llama-gqa-d")),
                        Method.SPARSEGPT,
                        new Pattern.Grouped(2, 5),
                        Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("cannot be divided into groups of 5");
    }
}
