// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.measure;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.calibrate.CalibrationOptions;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.plan.ExpertImportance;
import io.onnxprune.plan.ExpertImportance.Kind;
import io.onnxprune.plan.ExpertImportance.Sums;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.plan.Scores;
import io.onnxprune.rewrite.MaskedModel;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.function.Function;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * What experts contribute, compared with numbers computed by hand from values that ONNX Runtime's own kernels give for
 * the model as it was exported.
 */
@Tag("ort")
class ModelContributionsTest {
    private static final int HIDDEN = 2;

    @TempDir
    private Path folder;

    private final long[][] rows = IntStream.range(0, 3)
            .mapToObj(row -> new Random(row).longs(11, 1, 300).toArray())
            .toArray(long[][]::new);

    private ModelContributions of(PrunedState state) {
        CalibrationOptions options = new CalibrationOptions(CalibrationOptions.DEFAULT_MEMORY, folder, false);
        Function<Model, Calibrator> calibrators =
                model -> Calibrator.of(model, TestModels.runtime(), options, rows[0].length, Log.NONE);
        return new ModelContributions(state, List.of(rows), calibrators.apply(state.model()), calibrators);
    }

    private static PrunedState dense(Structure structure) {
        return PrunedState.whole(structure, Plan.keepAll(""));
    }

    private static List<Dimension> experts(Structure structure) {
        return structure.dimensions().stream()
                .filter(dimension -> dimension.role() == Role.EXPERTS)
                .toList();
    }

    /** Values of the model as it was exported. */
    private Map<String, HostTensor> values(Structure structure, List<String> names) {
        Model model = structure.analysis().program().model();
        Graph graph = model.graph();
        List<ValueInfo> shown = names.stream()
                .distinct()
                .map(name -> new ValueInfo(name, DType.UNDEFINED, null, new byte[0]))
                .toList();
        Model open = model.withGraph(graph.withInterface(graph.inputs(), shown));
        Map<String, HostTensor> values = new HashMap<>();
        try (Session session = TestModels.runtime().open(open, false);
                Outputs outputs = session.run(ModelInterface.of(graph).wholeRows(rows), names)) {
            names.forEach(name -> values.put(name, outputs.tensor(name)));
        }
        return values;
    }

    private static double length(float[] values, int from, int width) {
        double sum = 0;
        for (int i = from; i < from + width; i++) {
            sum += (double) values[i] * values[i];
        }
        return Math.sqrt(sum);
    }

    /** Lengths and numbers of tokens by expert. */
    private static final class ByHand {
        private final double[] lengths;
        private final double[] tokens;

        ByHand(int experts) {
            lengths = new double[experts];
            tokens = new double[experts];
        }

        void add(int expert, double length) {
            lengths[expert] += length;
            tokens[expert]++;
        }

        void assertEqual(Sums sums) {
            assertThat(sums.tokens()).containsExactly(tokens, within(0.0));
            assertThat(Arrays.stream(tokens).filter(count -> count > 0).count()).isGreaterThan(1);
            for (int expert = 0; expert < lengths.length; expert++) {
                assertThat(sums.contributions()[expert]).isCloseTo(lengths[expert], within(1e-5 * lengths[expert]));
            }
        }
    }

    /** The outputs of the chosen experts, times gates, are added over the second axis. */
    @ParameterizedTest
    @ValueSource(strings = {"mixtral-a", "biased-experts"})
    void stackedExperts(String name) {
        Structure structure = TestModels.structure(name);
        List<Op> ops = structure.analysis().program().ops();
        List<Op> choices = ops.stream().filter(op -> op.node().is("TopK")).toList();
        List<Op> sums = ops.stream()
                .filter(op -> op.node().is("ReduceSum") && structure.analysis().dims(op.input(0)).length == 1 + HIDDEN)
                .toList();
        Map<Dimension, Sums> measured = of(dense(structure)).measure(experts(structure), Kind.OUTPUT);
        assertThat(measured).hasSize(choices.size()).isNotEmpty();
        int layer = 0;
        for (Map.Entry<Dimension, Sums> entry : measured.entrySet()) {
            String index = choices.get(layer).output(1).name();
            String outputs = sums.get(layer++).input(0).name();
            Map<String, HostTensor> values = values(structure, List.of(index, outputs));
            long[] chosen = values.get(index).toLongs();
            float[] weighted = values.get(outputs).toFloats();
            int width = weighted.length / chosen.length;
            ByHand byHand = new ByHand(entry.getKey().size());
            for (int i = 0; i < chosen.length; i++) {
                byHand.add((int) chosen[i], length(weighted, i * width, width));
            }
            byHand.assertEqual(entry.getValue());
        }
    }

    /** The experts write the weighted outputs of their tokens one after the other. */
    @ParameterizedTest
    @ValueSource(strings = {"qwen3-moe-d", "unrolled-experts"})
    void unrolledExperts(String name) {
        Structure structure = TestModels.structure(name);
        List<Op> writes = structure.analysis().program().ops().stream()
                .filter(op -> op.node().op().startsWith("Scatter")
                        && op.node().inputs().size() == 3)
                .toList();
        Map<Dimension, Sums> measured = of(dense(structure)).measure(experts(structure), Kind.OUTPUT);
        assertThat(measured).isNotEmpty();
        int next = 0;
        for (Map.Entry<Dimension, Sums> entry : measured.entrySet()) {
            ByHand byHand = new ByHand(entry.getKey().size());
            for (int expert = 0; expert < entry.getKey().size(); expert++) {
                String updates = writes.get(next++).input(2).name();
                HostTensor written = values(structure, List.of(updates)).get(updates);
                int width = (int) written.shape()[written.shape().length - 1];
                float[] elements = written.toFloats();
                for (int row = 0; row < elements.length / width; row++) {
                    byHand.add(expert, length(elements, row * width, width));
                }
            }
            byHand.assertEqual(entry.getValue());
        }
        assertThat(next).isEqualTo(writes.size());
    }

    /** All experts compute all tokens, and gates weigh them; only tokens with a gate count. */
    @ParameterizedTest
    @ValueSource(strings = {"switch-experts", "weighed-experts"})
    void expertsOfAllTokens(String form) {
        Structure structure = TestModels.structure(
                ModelReader.read(Path.of("src", "test", "resources", "forms", form, "model.onnx")));
        boolean stacked = form.equals("switch-experts");
        // [experts, tokens, width] of all experts, or [tokens, width] of one expert after the other.
        List<String> weighed = structure.analysis().program().ops().stream()
                .filter(op -> op.node().is("Mul")
                        && structure.analysis().dims(op.output(0)).length == (stacked ? 1 + HIDDEN : HIDDEN)
                        && op.inputs().stream().anyMatch(value -> last(structure, value) == 1)
                        && last(structure, op.output(0)) > 1
                        && structure.stream().blocks().stream()
                                .anyMatch(block -> block.ops().contains(op)))
                .map(op -> op.output(0).name())
                .toList();
        Map<Dimension, Sums> measured = of(dense(structure)).measure(experts(structure), Kind.OUTPUT);
        assertThat(measured).hasSize(2);
        int next = 0;
        for (Map.Entry<Dimension, Sums> entry : measured.entrySet()) {
            int count = entry.getKey().size();
            ByHand byHand = new ByHand(count);
            for (int part = 0; part < (stacked ? 1 : count); part++) {
                String name = weighed.get(next++);
                HostTensor tensor = values(structure, List.of(name)).get(name);
                float[] elements = tensor.toFloats();
                int width = (int) tensor.shape()[tensor.shape().length - 1];
                int tokens = elements.length / width / (stacked ? count : 1);
                for (int row = 0; row < elements.length / width; row++) {
                    double length = length(elements, row * width, width);
                    if (length > 0) {
                        byHand.add(stacked ? row / tokens : part, length);
                    }
                }
            }
            byHand.assertEqual(entry.getValue());
        }
        assertThat(next).isEqualTo(weighed.size());
    }

    private static long last(Structure structure, Value value) {
        Dim[] dims = structure.analysis().dims(value);
        return dims == null || dims.length == 0 ? 0 : dims[dims.length - 1].size(0);
    }

    /** Gates in a matrix product leave no output of a single expert. */
    @Test
    void gatesInAMatrixProductAreRefused() {
        Structure structure = TestModels.structure(
                ModelReader.read(Path.of("src", "test", "resources", "forms", "dense-experts", "model.onnx")));
        ModelContributions contributions = of(dense(structure));
        List<Dimension> experts = experts(structure);
        assertThat(contributions.taps(experts.subList(0, 1), Kind.OUTPUT)).hasSize(1);
        assertThatThrownBy(() -> contributions.taps(experts, Kind.OUTPUT))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("the experts of experts.1 cannot be scored by their outputs");
    }

    /** The operator is computed by hand, from its operands. */
    @Test
    void fusedExperts() {
        Structure structure = TestModels.structure("fused-experts");
        List<Op> mixtures = structure.analysis().program().ops().stream()
                .filter(op -> op.node().op().equals("MoE"))
                .toList();
        Map<Dimension, Sums> measured = of(dense(structure)).measure(experts(structure), Kind.OUTPUT);
        assertThat(measured).hasSize(mixtures.size()).isNotEmpty();
        int layer = 0;
        for (Map.Entry<Dimension, Sums> entry : measured.entrySet()) {
            Op op = mixtures.get(layer++);
            String x = op.input(0).name();
            String router = op.input(1).name();
            Map<String, HostTensor> values = values(structure, List.of(x, router));
            FusedExperts experts = new FusedExperts(op);
            int width = experts.hidden;
            int count = entry.getKey().size();
            float[] inputs = values.get(x).toFloats();
            float[] scores = values.get(router).toFloats();
            ByHand byHand = new ByHand(count);
            for (int token = 0; token < inputs.length / width; token++) {
                double[] gates = experts.gates(Arrays.copyOfRange(scores, token * count, (token + 1) * count));
                for (int expert = 0; expert < count; expert++) {
                    if (gates[expert] > 0) {
                        float[] row = Arrays.copyOfRange(inputs, token * width, (token + 1) * width);
                        byHand.add(expert, gates[expert] * length(experts.output(expert, row), 0, width));
                    }
                }
            }
            byHand.assertEqual(entry.getValue());
        }
    }

    /** com.microsoft.MoE for single tokens and experts, by its specification. */
    private static final class FusedExperts {
        private final Op op;
        private final Node node;
        private final boolean gated;
        private final int hidden;
        private final int inner;

        FusedExperts(Op op) {
            this.op = op;
            this.node = op.node();
            this.gated = node.textAttribute("activation_type", "relu").equals("swiglu");
            this.hidden = (int) op.input(4).constant().dim(1);
            this.inner = (int) op.input(4).constant().dim(2);
        }

        double[] gates(float[] scores) {
            double sum = 0;
            double[] gates = new double[scores.length];
            for (int i = 0; i < scores.length; i++) {
                gates[i] = Math.exp(scores[i]);
                sum += gates[i];
            }
            int k = (int) node.intAttribute("k", 1);
            double least = Arrays.stream(gates).sorted().toArray()[gates.length - k];
            double chosen = Arrays.stream(gates).filter(gate -> gate >= least).sum();
            double divisor = node.intAttribute("normalize_routing_weights", 0) != 0 ? chosen : sum;
            return Arrays.stream(gates)
                    .map(gate -> gate >= least ? gate / divisor : 0)
                    .toArray();
        }

        private double[] linear(int weights, int expert, double[] x) {
            float[] w = op.input(weights).constant().toFloats();
            int outputs = (int) op.input(weights).constant().dim(1);
            float[] bias = op.input(weights + 1) == null
                    ? new float[w.length / x.length]
                    : op.input(weights + 1).constant().toFloats();
            double[] y = new double[outputs];
            for (int i = 0; i < outputs; i++) {
                y[i] = bias[expert * outputs + i];
                for (int j = 0; j < x.length; j++) {
                    y[i] += w[(expert * outputs + i) * x.length + j] * x[j];
                }
            }
            return y;
        }

        float[] output(int expert, float[] row) {
            double[] x = IntStream.range(0, row.length).mapToDouble(i -> row[i]).toArray();
            double[] sums = linear(2, expert, x);
            double[] active = new double[inner];
            for (int i = 0; i < inner; i++) {
                active[i] = gated ? swiglu(sums[2 * i], sums[2 * i + 1]) : sums[i] / (1 + Math.exp(-sums[i]));
            }
            double[] y = linear(4, expert, active);
            float[] result = new float[y.length];
            for (int i = 0; i < y.length; i++) {
                result[i] = (float) y[i];
            }
            return result;
        }

        private double swiglu(double gate, double linear) {
            double limit = node.floatAttribute("swiglu_limit", Float.POSITIVE_INFINITY);
            double g = Math.min(gate, limit);
            double l = Math.max(-limit, Math.min(linear, limit));
            double alpha = node.floatAttribute("activation_alpha", 1);
            return g / (1 + Math.exp(-alpha * g)) * (l + node.floatAttribute("activation_beta", 0));
        }
    }

    /** The changes by single tokens are at least as large as their sum, and their squares lie between its bounds. */
    @Test
    void changesByGatesAreThoseOfSingleTokens() {
        Structure structure = TestModels.structure("unrolled-experts");
        ModelContributions contributions = of(dense(structure));
        Map<Dimension, Sums> changes = contributions.measure(experts(structure), Kind.CHANGE);
        Map<Dimension, Sums> squares = contributions.measure(experts(structure), Kind.FISHER);
        List<String> outputs = structure.analysis().program().ops().stream()
                .filter(op -> op.node().op().startsWith("Scatter"))
                .map(op -> op.input(2).name())
                .toList();
        Map<Tap, HostTensor> saliences = new HashMap<>();
        List<Tap> taps = new ArrayList<>();
        outputs.forEach(name -> taps.add(new Tap.Salience(new io.onnxprune.calibrate.Activation(name, 32))));
        contributions.calibrator().gather(List.of(rows), taps, saliences::put);
        int next = 0;
        for (Dimension dimension : changes.keySet()) {
            for (int expert = 0; expert < dimension.size(); expert++) {
                double signed = 0;
                for (float part : saliences.get(taps.get(next++)).toFloats()) {
                    signed += part;
                }
                double change = changes.get(dimension).contributions()[expert];
                double square = squares.get(dimension).contributions()[expert];
                double tokens = changes.get(dimension).tokens()[expert];
                assertThat(change).isGreaterThanOrEqualTo(Math.abs(signed) * (1 - 1e-5));
                assertThat(square).isGreaterThanOrEqualTo(change * change / Math.max(1, tokens) * (1 - 1e-5));
                assertThat(square).isLessThanOrEqualTo(change * change * (1 + 1e-5));
            }
        }
    }

    /** Compared with runs of the whole model in which an expert is masked, so that the router chooses others. */
    @ParameterizedTest
    @ValueSource(strings = {"fused-experts", "mixtral-a", "unrolled-experts"})
    void theDivergenceIsThatOfTheModelWithoutTheExpert(String name) {
        Structure structure = TestModels.structure(name);
        Dimension first = experts(structure).get(0);
        Sums sums =
                of(dense(structure)).measure(List.of(first), Kind.DIVERGENCE).get(first);

        float[] whole = logits(structure.analysis().program().model());
        for (int expert = 0; expert < first.size(); expert++) {
            int gone = expert;
            int[] kept = IntStream.range(0, first.size()).filter(i -> i != gone).toArray();
            Plan plan = new Plan("", Map.of(first.name(), kept), null, null);
            double expected = divergence(whole, logits(MaskedModel.of(structure, plan, Map.of())));
            assertThat(expected).isPositive();
            assertThat(sums.contributions()[expert]).isCloseTo(expected, within(1e-6 + 1e-3 * expected));
        }
    }

    private float[] logits(Model model) {
        try (CausalLm lm = CausalLm.of(TestModels.runtime().open(model, true), model.graph())) {
            return lm.logits(rows).toFloats();
        }
    }

    /** The mean KL divergence over positions. */
    private double divergence(float[] reference, float[] other) {
        int positions = rows.length * rows[0].length;
        int vocabulary = reference.length / positions;
        double sum = 0;
        for (int start = 0; start < reference.length; start += vocabulary) {
            double one = logSum(reference, start, vocabulary);
            double two = logSum(other, start, vocabulary);
            for (int i = start; i < start + vocabulary; i++) {
                sum += Math.exp(reference[i] - one) * (reference[i] - one - other[i] + two);
            }
        }
        return sum / positions;
    }

    private static double logSum(float[] logits, int start, int count) {
        double sum = 0;
        for (int i = start; i < start + count; i++) {
            sum += Math.exp(logits[i]);
        }
        return Math.log(sum);
    }

    /** What the kept experts contribute is measured under the names of the dense model. */
    @ParameterizedTest
    @ValueSource(strings = {"fused-experts", "biased-experts", "unrolled-experts"})
    void prunedExpertsContributeNothing(String name) {
        Structure structure = TestModels.structure(name);
        Dimension first = experts(structure).get(0);
        int[] kept = IntStream.range(0, first.size()).filter(i -> i != 1).toArray();
        Plan plan = new Plan("", Map.of(first.name(), kept), null, null);
        PrunedState state = PrunedState.of(structure, plan, Map.of());
        Sums sums = of(state).measure(experts(structure), Kind.OUTPUT).get(first);

        assertThat(sums.contributions()[1]).isZero();
        assertThat(Arrays.stream(sums.tokens()).sum())
                .isEqualTo(Arrays.stream(of(dense(structure))
                                .measure(experts(structure), Kind.OUTPUT)
                                .get(first)
                                .tokens())
                        .sum());
    }

    @Test
    void scoresAreMeansOverTheTokensOfAnExpert() {
        Structure structure = TestModels.structure("fused-experts");
        Dimension first = experts(structure).get(0);
        Sums sums = new Sums(new double[] {6, 0, 3, 1, 8}, new double[] {3, 0, 1, 4, 2});
        ExpertImportance.Contributions given = (dimensions, kind) -> Map.of(first, sums);
        Scores means = new ExpertImportance(Kind.OUTPUT, given).score(structure, Log.NONE);
        Scores totals = new ExpertImportance(Kind.CHANGE, given).score(structure, Log.NONE);

        assertThat(means.units().get(first.name())).containsExactly(2, 0, 3, 0.25, 4);
        assertThat(totals.units().get(first.name())).containsExactly(6, 0, 3, 1, 8);
        ExpertImportance.require(PruneSet.parse(List.of("experts")));
        assertThatThrownBy(() -> ExpertImportance.require(PruneSet.parse(List.of("ffn", "experts"))))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("prune only experts, or choose another metric");
    }
}
