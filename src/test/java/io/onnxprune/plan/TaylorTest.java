// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.calibrate.GradientSink;
import io.onnxprune.calibrate.GradientSums;
import io.onnxprune.calibrate.ResumableSink;
import io.onnxprune.calibrate.RuntimeReduction;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.DimensionAnalysis.Member;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.Taylor.Gradients;
import io.onnxprune.plan.Taylor.Kind;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.FloatBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
class TaylorTest {
    private static final PruneSet ALL = PruneSet.parse(List.of("heads", "ffn", "hidden", "layers"));
    private static final int ROWS = 7;

    /** Random sums of gradients, with squares that are consistent with them. */
    private static final class RandomGradients implements Gradients {
        private final Map<String, float[][]> values = new HashMap<>();
        private final Map<String, long[]> shapes = new HashMap<>();
        private final Set<String> missing = new HashSet<>();
        private final Set<String> asked = new HashSet<>();

        /** Reduces the sums in the runtime; null to leave them to the caller. */
        private RuntimeReduction reduction;

        RandomGradients(Structure structure) {
            Random random = new Random(5);
            structure.analysis().constantUses().keySet().forEach(use -> {
                Tensor tensor = use.op().input(use.input()).constant();
                if (tensor.dtype().isFloat()) {
                    values.computeIfAbsent(use.op().input(use.input()).name(), name -> {
                        shapes.put(name, tensor.shape());
                        float[][] both = new float[2][(int) tensor.elements()];
                        for (int i = 0; i < both[0].length; i++) {
                            both[0][i] = (float) random.nextGaussian();
                            both[1][i] = both[0][i] * both[0][i] / ROWS + random.nextFloat();
                        }
                        return both;
                    });
                }
            });
        }

        @Override
        public int rows() {
            return ROWS;
        }

        @Override
        public void run(Set<String> initializers, boolean squares, GradientSink sink) {
            asked.addAll(initializers);
            initializers.stream().filter(name -> !missing.contains(name)).forEach(name -> {
                float[][] both = values.get(name);
                // The data does not begin at the start of the buffer.
                float[] shifted = new float[both[0].length + 3];
                System.arraycopy(both[0], 0, shifted, 3, both[0].length);
                FloatBuffer sum = FloatBuffer.wrap(shifted).position(3);
                sink.accept(
                        name,
                        reduction == null
                                ? GradientSums.of(sum, squares ? FloatBuffer.wrap(both[1]) : null)
                                : reduction.sums(shapes.get(name), both[0], squares ? both[1] : null));
            });
        }

        /** The signed term of each element of an initializer. */
        double[] terms(String name, Tensor tensor, Kind kind) {
            float[] w = tensor.toFloats();
            float[][] both = values.get(name);
            return IntStream.range(0, w.length)
                    .mapToDouble(i -> {
                        double first = (double) w[i] * both[0][i] / ROWS;
                        double second = (double) w[i] * w[i] * both[1][i] / ROWS;
                        return switch (kind) {
                            case VECTOR, ELEMENT1 -> first;
                            case ELEMENT2 -> second;
                            case MIX -> first - second / 2;
                        };
                    })
                    .toArray();
        }

        /** The score of each index along an axis of a member. */
        double[] along(Member member, Kind kind) {
            Tensor tensor = member.tensor();
            double[] terms = terms(nameOf(member), tensor, kind);
            double[] sums = new double[(int) tensor.dim(member.axis())];
            int stride = 1;
            for (int axis = member.axis() + 1; axis < tensor.rank(); axis++) {
                stride *= (int) tensor.dim(axis);
            }
            for (int i = 0; i < terms.length; i++) {
                sums[i / stride % sums.length] += kind == Kind.VECTOR ? terms[i] : Math.abs(terms[i]);
            }
            return Arrays.stream(sums).map(Math::abs).toArray();
        }
    }

    private static String nameOf(Member member) {
        return member.use().op().input(member.use().input()).name();
    }

    @ParameterizedTest
    @EnumSource(Kind.class)
    void theScoreOfAUnitAddsUpTheTermsOfItsSlices(Kind kind) {
        for (String name : List.of("llama-gqa-d", "phi3-d", "stories-llama", "gpt2-g-merged", "qwen3-moe-d")) {
            Structure structure = TestModels.structure(name);
            RandomGradients gradients = new RandomGradients(structure);
            Scores scores = new Taylor(kind, Reduction.SUM, ALL, gradients).score(structure, Log.NONE);
            assertThat(scores.units()).isNotEmpty();
            scores.units().forEach((key, units) -> {
                Dimension dimension = ParameterCountTest.named(structure, key);
                for (int unit : new int[] {0, units.length / 2, units.length - 1}) {
                    double expected = 0;
                    Set<List<Object>> seen = new HashSet<>();
                    for (Member member : dimension.members()) {
                        if (member.tensor().dtype().isFloat() && seen.add(List.of(member.tensor(), member.axis()))) {
                            double[] along = gradients.along(member, kind);
                            for (int index : indices(dimension, member, unit)) {
                                expected += along[index];
                            }
                        }
                    }
                    for (Member member : own(structure, dimension, unit)) {
                        double[] terms = gradients.terms(nameOf(member), member.tensor(), kind);
                        expected += kind == Kind.VECTOR
                                ? Math.abs(Arrays.stream(terms).sum())
                                : Arrays.stream(terms).map(Math::abs).sum();
                    }
                    assertThat(units[unit])
                            .as("%s %s %d", name, key, unit)
                            .isCloseTo(expected, within(1e-6 * (1 + expected)));
                }
            });
        }
    }

    /** The weights that no other unit uses, each by its first axis. */
    private static List<Member> own(Structure structure, Dimension dimension, int unit) {
        List<Member> found = new ArrayList<>();
        if (!dimension.units().own().isEmpty()) {
            structure.analysis().constantUses().forEach((use, dims) -> {
                Tensor tensor = use.op().input(use.input()).constant();
                boolean owned =
                        dimension.units().own().get(unit).contains(use.op().input(use.input()));
                if (owned && tensor.dtype().isFloat() && tensor.elements() > 1) {
                    found.add(new Member(use, 0, dims[0], tensor));
                }
            });
        }
        return found;
    }

    /** The indices of a unit, found by the indices that are kept without it. */
    private static int[] indices(Dimension dimension, Member member, int unit) {
        int[] others =
                IntStream.range(0, dimension.size()).filter(i -> i != unit).toArray();
        Dim.Keep without = atom -> atom == dimension.atom() ? others : null;
        int[] left = member.dim().kept(without);
        return IntStream.range(0, (int) member.tensor().dim(member.axis()))
                .filter(index -> Arrays.binarySearch(left, index) < 0)
                .toArray();
    }

    /** Computed by hand: q and o have (groups, repeats, size) indices, k and v have (groups, size). */
    @ParameterizedTest
    @EnumSource(Reduction.class)
    void queryHeadsAreFoldedOntoTheirOwnGroup(Reduction reduction) {
        Structure structure = TestModels.structure("llama-gqa-d");
        Dimension dimension = ParameterCountTest.named(structure, "kv_heads.1");
        RandomGradients gradients = new RandomGradients(structure);
        List<double[]> members = new ArrayList<>();
        dimension.members().forEach(member -> members.add(gradients.along(member, Kind.ELEMENT1)));
        int groups = dimension.size();
        int size = members.stream().mapToInt(along -> along.length).min().orElseThrow() / groups;
        assertThat(members).hasSize(4);
        assertThat(members).anyMatch(along -> along.length > groups * size);

        double[] expected = new double[groups];
        for (int group = 0; group < groups; group++) {
            for (int channel = 0; channel < size; channel++) {
                double[] stack = new double[members.size()];
                for (int i = 0; i < stack.length; i++) {
                    int repeats = members.get(i).length / groups / size;
                    for (int repeat = 0; repeat < repeats; repeat++) {
                        stack[i] += members.get(i)[(group * repeats + repeat) * size + channel];
                    }
                }
                expected[group] += reduced(reduction, stack);
            }
        }
        Scores scores = new Taylor(Kind.ELEMENT1, reduction, ALL, gradients).score(structure, Log.NONE);
        assertThat(scores.units().get("kv_heads.1")).containsExactly(expected, within(1e-6));
    }

    /** Gate and up are concatenated in one matrix but are two members. */
    @ParameterizedTest
    @EnumSource(Reduction.class)
    void partsOfAFusedMatrixAreMembersOfTheirOwn(Reduction reduction) {
        Structure structure = TestModels.structure("phi3-d");
        Dimension dimension = ParameterCountTest.named(structure, "ffn.0");
        RandomGradients gradients = new RandomGradients(structure);
        double[] fused = gradients.along(dimension.members().get(0), Kind.ELEMENT2);
        double[] down = gradients.along(dimension.members().get(1), Kind.ELEMENT2);
        int size = dimension.size();
        assertThat(dimension.members()).hasSize(2);
        assertThat(fused).hasSize(2 * size);

        double[] expected = IntStream.range(0, size)
                .mapToDouble(unit -> reduced(reduction, fused[unit], fused[size + unit], down[unit]))
                .toArray();
        Scores scores = new Taylor(Kind.ELEMENT2, reduction, ALL, gradients).score(structure, Log.NONE);
        assertThat(scores.units().get("ffn.0")).containsExactly(expected, within(1e-6));
    }

    private static double reduced(Reduction reduction, double... scores) {
        double sum = Arrays.stream(scores).sum();
        return switch (reduction) {
            case SUM -> sum;
            case MEAN -> sum / scores.length;
            case MAX -> Arrays.stream(scores).max().orElseThrow();
            case PROD -> Arrays.stream(scores).reduce(1, (a, b) -> a * b);
            case FIRST -> scores[0];
            case LAST -> scores[scores.length - 1];
        };
    }

    @Test
    void layersAndBlocksAddUpTheirWeights() {
        Structure structure = TestModels.structure("stories-llama");
        Scores scores = new Taylor(Kind.ELEMENT1, Reduction.SUM, ALL, new RandomGradients(structure))
                .score(structure, Log.NONE);

        for (int layer = 0; layer < 6; layer++) {
            double blocks = scores.blocks()[2 * layer] + scores.blocks()[2 * layer + 1];
            assertThat(scores.layers()[layer]).isPositive().isCloseTo(blocks, within(1e-6 * blocks));
        }
    }

    @Test
    void onlyGradientsOfPrunableStructuresAreRequested() {
        Structure structure = TestModels.structure("stories-llama");
        RandomGradients gradients = new RandomGradients(structure);
        Scores scores = new Taylor(Kind.ELEMENT1, Reduction.SUM, PruneSet.parse(List.of("ffn")), gradients)
                .score(structure, Log.NONE);

        assertThat(scores.units())
                .hasSize(6)
                .allSatisfy((name, units) -> assertThat(name).startsWith("ffn."));
        assertThat(gradients.asked).hasSize(18);
    }

    @Test
    void weightsThatTheLossDoesNotDependOnDoNotCount() {
        Structure structure = TestModels.structure("stories-llama");
        RandomGradients gradients = new RandomGradients(structure);
        List<Member> members = ParameterCountTest.named(structure, "ffn.2").members();
        double[] down = gradients.along(members.get(2), Kind.ELEMENT1);
        gradients.missing.add(nameOf(members.get(0)));
        gradients.missing.add(nameOf(members.get(1)));
        ParameterCountTest.named(structure, "ffn.3").members().forEach(member -> gradients.missing.add(nameOf(member)));
        RecordedLog log = new RecordedLog();
        Scores scores = new Taylor(Kind.ELEMENT1, Reduction.MEAN, ALL, gradients).score(structure, log);

        assertThat(scores.units().get("ffn.2")).containsExactly(down, within(1e-6));
        assertThat(scores.units().get("ffn.3")).containsOnly(0);
        assertThat(log.warnings())
                .containsExactly("the loss does not depend on the weights of ffn.3, so all its units score 0");
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void gradientsThatAreNotFiniteAreRefused(boolean inRuntime) {
        Structure structure = TestModels.structure("stories-llama");
        RandomGradients gradients = new RandomGradients(structure);
        String name =
                nameOf(ParameterCountTest.named(structure, "ffn.2").members().get(0));
        try (RuntimeReduction reduction = reduction(structure)) {
            gradients.reduction = inRuntime ? reduction : null;
            for (float value : new float[] {Float.NaN, Float.NEGATIVE_INFINITY}) {
                gradients.values.get(name)[0][4321] = value;

                assertThatThrownBy(
                                () -> new Taylor(Kind.VECTOR, Reduction.SUM, ALL, gradients).score(structure, Log.NONE))
                        .isInstanceOf(UserException.class)
                        .hasMessageContaining('"' + name + '"')
                        .hasMessageContaining("not finite at element 4321");
            }
        }
    }

    @ParameterizedTest
    @EnumSource(Kind.class)
    void theRuntimeReducesToTheSameScores(Kind kind) {
        for (String name : TestModels.names()) {
            Structure structure = TestModels.structure(name);
            RandomGradients gradients = new RandomGradients(structure);
            Scores expected = new Taylor(kind, Reduction.SUM, ALL, gradients).score(structure, Log.NONE);
            try (RuntimeReduction reduction = reduction(structure)) {
                gradients.reduction = reduction;
                Scores found = new Taylor(kind, Reduction.SUM, ALL, gradients).score(structure, Log.NONE);
                ScoresAssert.assertEqual(found, expected, 1e-12);
            }
        }
    }

    /** The first run passes half of the gradients and saves the state of the sink, and the second run continues. */
    private record Stopped(RandomGradients gradients, ByteArrayOutputStream saved) implements Gradients {
        @Override
        public int rows() {
            return ROWS;
        }

        @Override
        public void run(Set<String> initializers, boolean squares, GradientSink sink) {
            List<String> all = List.copyOf(initializers);
            int half = all.size() / 2;
            ResumableSink resumable = (ResumableSink) sink;
            try {
                if (saved.size() == 0) {
                    gradients.run(Set.copyOf(all.subList(0, half)), squares, sink);
                    resumable.save(new DataOutputStream(saved));
                } else {
                    resumable.restore(new DataInputStream(new ByteArrayInputStream(saved.toByteArray())));
                    gradients.run(Set.copyOf(all.subList(half, all.size())), squares, sink);
                }
            } catch (IOException e) {
                throw new UncheckedIOException(e);
            }
        }
    }

    @ParameterizedTest
    @ValueSource(booleans = {false, true})
    void aResumedRunGivesTheSameScores(boolean inRuntime) {
        Structure structure = TestModels.structure("llama-gqa-d");
        RandomGradients gradients = new RandomGradients(structure);
        Scores expected = new Taylor(Kind.MIX, Reduction.SUM, ALL, gradients).score(structure, Log.NONE);
        try (RuntimeReduction reduction = reduction(structure)) {
            gradients.reduction = inRuntime ? reduction : null;
            Taylor taylor =
                    new Taylor(Kind.MIX, Reduction.SUM, ALL, new Stopped(gradients, new ByteArrayOutputStream()));
            taylor.score(structure, Log.NONE);
            Scores resumed = taylor.score(structure, Log.NONE);

            ScoresAssert.assertEqual(resumed, expected, 1e-12);
        }
    }

    private static RuntimeReduction reduction(Structure structure) {
        return new RuntimeReduction(
                TestModels.runtime(), structure.analysis().program().model());
    }
}
