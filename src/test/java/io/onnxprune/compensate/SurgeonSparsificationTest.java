// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.compensate.SurgeonSparsification.Request;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.obs.Pattern;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.PrunedState;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
@Tag("slow")
class SurgeonSparsificationTest {
    private static final List<long[]> ROWS = Runs.rows(30);

    @TempDir
    private Path folder;

    private final List<Integer> runs = new ArrayList<>();

    private SurgeonSparsification.Result run(PrunedState state, Request request, Log log) {
        return SurgeonSparsification.run(
                new PrunedModel(
                        state,
                        LinearLayers.of(state.structure()),
                        Runs.calibrator(state.model(), folder),
                        (model, taps) -> {
                            runs.add(taps.size());
                            return Statistics.measure(model, ROWS, taps);
                        },
                        folder,
                        log),
                request);
    }

    /** Makes zeros in steps, each on the model that the step before produced. */
    private SurgeonSparsification.Result run(PrunedState state, Request request, int steps, Log log) {
        PrunedState now = state;
        SurgeonSparsification.Result result = null;
        for (int step = 1; step <= steps; step++) {
            double share = request.share() * step / steps;
            result = run(
                    now,
                    new Request(
                            request.pattern(),
                            share,
                            request.damping(),
                            request.gradientDamping(),
                            request.correlate()),
                    log);
            Map<Value, Tensor> updates = new HashMap<>(now.updates());
            updates.putAll(result.updates());
            now = PrunedState.of(state.structure(), state.plan(), updates);
        }
        return result;
    }

    private SurgeonSparsification.Result run(Structure structure, Request request, int steps) {
        return run(PrunedState.whole(structure, Plan.keepAll("")), request, steps, Log.NONE);
    }

    private static Request request(Pattern pattern, double share) {
        return new Request(pattern, share, 0.01, 0.1, 0);
    }

    private static Request unstructured(double share) {
        return request(new Pattern.Unstructured(share), share);
    }

    private static Matrix read(Structure structure, Map<Value, Tensor> updates, Value weight) {
        LinearLayer layer = LinearLayers.of(structure).ofWeight(weight.name());
        return WeightStore.read(updates.get(weight), layer.axis());
    }

    @ParameterizedTest
    @ValueSource(strings = {"llama-gqa-d", "opt-f-a-bert", "llama-g16-e-fp16"})
    void everyGroupHasItsZerosAfterTheLastStep(String name) {
        Structure structure = TestModels.structure(name);
        SurgeonSparsification.Result result = run(structure, request(new Pattern.Grouped(2, 4), 0.5), 2);

        assertThat(runs).hasSize(2);
        Set<Value> weights = new HashSet<>(result.updates().keySet());
        weights.removeIf(value -> LinearLayers.of(structure).ofWeight(value.name()) == null);
        assertThat(result.zeros().matrices()).isEqualTo(weights.size());
        assertThat(result.zeros().share()).isCloseTo(0.5, within(0.001));
        for (Value weight : weights) {
            assertThat(result.updates().get(weight).dtype())
                    .isEqualTo(weight.constant().dtype());
            try (Matrix w = read(structure, result.updates(), weight)) {
                for (int i = 0; i < w.rows(); i += 4) {
                    for (int j = 0; j < w.columns(); j++) {
                        int zeros = 0;
                        for (int k = i; k < i + 4; k++) {
                            zeros += w.get(k, j) == 0 ? 1 : 0;
                        }
                        assertThat(zeros).isGreaterThanOrEqualTo(2);
                    }
                }
            }
        }
    }

    /** A bias is one more input that is always 1, for elements as for rows and columns. */
    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void biasesCompensate(boolean structured) {
        Structure structure = TestModels.structure("opt-f-a-bert");
        Pattern pattern = structured ? new Pattern.Structured(0.2) : new Pattern.Unstructured(0.5);
        Map<Value, Tensor> updates =
                run(structure, request(pattern, pattern.share()), 1).updates();
        PrunedState dense = PrunedState.whole(structure, Plan.keepAll(""));

        assertThat(Runs.checkMeans(Runs.model(dense, folder, Log.NONE), updates, true))
                .isEqualTo(12);
    }

    @Test
    void oneThresholdHoldsForAllMatrices() {
        Structure structure = TestModels.structure("llama-gqa-d");
        SurgeonSparsification.Result result = run(structure, unstructured(0.3), 1);

        assertThat(result.zeros().share()).isCloseTo(0.3, within(1e-4));
        double least = 1;
        double most = 0;
        for (Value weight : result.updates().keySet()) {
            try (Matrix w = read(structure, result.updates(), weight)) {
                double share = Sparsification.Zeros.NONE.and(w).share();
                least = Math.min(least, share);
                most = Math.max(most, share);
            }
        }
        assertThat(most - least).isGreaterThan(0.1);
    }

    @ParameterizedTest
    @CsvSource({"0, 1", "50, 1", "0, 3"})
    void zerosOfEarlierStepsAreKept(int correlate, int steps) {
        Structure structure = TestModels.structure("llama-gqa-d");
        Pattern pattern = new Pattern.Unstructured(0.5);
        Map<Value, Tensor> first = run(structure, new Request(pattern, 0.2, 0.01, 0.1, correlate), 1)
                .updates();
        PrunedState between = PrunedState.of(structure, Plan.keepAll(""), first);
        SurgeonSparsification.Result second =
                run(between, new Request(pattern, 0.5, 0.01, 0.1, correlate), steps, Log.NONE);

        assertThat(second.zeros().share()).isCloseTo(0.5, within(1e-4));
        long kept = 0;
        for (Value weight : first.keySet()) {
            try (Matrix before = read(structure, first, weight);
                    Matrix after = read(structure, second.updates(), weight)) {
                for (int i = 0; i < before.rows(); i++) {
                    for (int j = 0; j < before.columns(); j++) {
                        if (before.get(i, j) == 0) {
                            assertThat(after.get(i, j)).isZero();
                            kept++;
                        }
                    }
                }
            }
        }
        assertThat(kept).isEqualTo(Math.round(0.2 * second.zeros().weights()));
    }

    @Test
    void wholeRowsAndColumnsBecomeZero() {
        Structure structure = TestModels.structure("llama-gqa-d");
        SurgeonSparsification.Result result = run(structure, request(new Pattern.Structured(0.3), 0.3), 2);

        assertThat(result.zeros().share()).isBetween(0.29, 0.3);
        int rows = 0;
        int columns = 0;
        for (Value weight : result.updates().keySet()) {
            try (Matrix w = read(structure, result.updates(), weight);
                    Matrix turned = w.transposed()) {
                int zeroRowCount = zeroRows(w);
                int zeroColumnCount = zeroRows(turned);
                long inStrips = (long) zeroRowCount * w.columns()
                        + (long) zeroColumnCount * w.rows()
                        - (long) zeroRowCount * zeroColumnCount;
                assertThat(Sparsification.Zeros.NONE.and(w).zeros()).isEqualTo(inStrips);
                rows += zeroRowCount;
                columns += zeroColumnCount;
            }
        }
        assertThat(rows).isPositive();
        assertThat(columns).isPositive();
    }

    /** The number of rows that are all zero. */
    private static int zeroRows(Matrix w) {
        int found = 0;
        double[] row = new double[w.columns()];
        for (int i = 0; i < w.rows(); i++) {
            w.getRow(i, row);
            boolean zero = true;
            for (double value : row) {
                zero &= value == 0;
            }
            found += zero ? 1 : 0;
        }
        return found;
    }

    @Test
    void prunedUnitsRemainPruned() {
        Structure structure = TestModels.structure("llama-gqa-d");
        Plan plan = Runs.plan(structure, 0.2, "heads", "ffn");
        SurgeonSparsification.Result result =
                run(PrunedState.of(structure, plan, Map.of()), unstructured(0.5), Log.NONE);

        assertThat(result.zeros().weights())
                .isLessThan(result.updates().keySet().stream()
                        .mapToLong(weight -> weight.constant().elements())
                        .sum());
        assertThat(result.zeros().share()).isCloseTo(0.5, within(0.001));
        result.updates()
                .forEach((weight, tensor) ->
                        assertThat(tensor.shape()).isEqualTo(weight.constant().shape()));
    }

    @Test
    void weightsThatCannotChangeAreKeptWithAWarning() {
        RecordedLog log = new RecordedLog();
        PrunedState state = PrunedState.whole(TestModels.structure("mixtral-a"), Plan.keepAll(""));
        assertThat(run(state, unstructured(0.5), log).updates()).isNotEmpty();
        assertThat(log.warnings()).anyMatch(line -> line.matches("\\d+ linear layers of residual blocks keep their.*"));

        PrunedState quantised = PrunedState.whole(TestModels.structure("llama-g16-e-int4"), Plan.keepAll(""));
        assertThatThrownBy(() -> run(quantised, unstructured(0.5), log))
                .isInstanceOf(UserException.class)
                .hasMessageStartingWith("no weight of this model can become zero: node ");
    }

    /** The inputs of a layer of zeros get no gradient. */
    @Test
    void weightsWithoutGradientBecomeZeroFirst() {
        Structure structure = TestModels.structure("llama-gqa-d");
        LinearLayers layers = LinearLayers.of(structure);
        LinearLayer last = structure.dimensions().stream()
                .filter(dimension -> dimension.role() == Role.FFN)
                .flatMap(dimension -> layers.of(dimension).stream())
                .findFirst()
                .orElseThrow();
        Tensor weight = last.weight().constant();
        Tensor zeros =
                Tensor.of(weight.dtype(), weight.shape(), Bytes.of(ByteBuffer.allocate((int) (4 * weight.elements()))));
        RecordedLog log = new RecordedLog();
        SurgeonSparsification.Result result = run(
                PrunedState.of(structure, Plan.keepAll(""), Map.of(last.weight(), zeros)), unstructured(0.3), 2, log);

        assertThat(Set.copyOf(log.warnings()))
                .hasSize(2)
                .allMatch(line ->
                        line.matches("no gradient reaches node .*, so its weights cost nothing and become zero first"));
        List<Double> shares = new ArrayList<>();
        for (Value changed : result.updates().keySet()) {
            try (Matrix w = read(structure, result.updates(), changed)) {
                shares.add(Sparsification.Zeros.NONE.and(w).share());
            }
        }
        assertThat(shares.stream().filter(share -> share == 1)).hasSize(3);
        assertThat(result.zeros().share()).isCloseTo(0.3, within(1e-4));
    }

    @Test
    void groupsMustDivideTheInputsBeforeAnythingIsMeasured() {
        assertThatThrownBy(() -> run(TestModels.structure("llama-gqa-d"), request(new Pattern.Grouped(2, 5), 0.4), 1))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("cannot be divided into groups of 5");
        assertThat(runs).isEmpty();
    }
}
