// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphChecker;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.Widening;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.runtime.Session;
import io.onnxprune.verify.Verifier;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

@Tag("ort")
@Tag("slow")
class OutputBiasesTest {
    @TempDir
    private Path folder;

    static List<String> models() {
        return TestModels.names();
    }

    private static List<Dimension> prunable(Structure structure) {
        return structure.dimensions().stream()
                .filter(dimension ->
                        dimension.isPrunable() && PruneSet.standard().roles().contains(dimension.role()))
                .toList();
    }

    private static List<LinearLayer> linearLayers(Structure structure) {
        LinearLayers consumers = LinearLayers.of(structure);
        return prunable(structure).stream()
                .flatMap(dimension -> consumers.of(dimension).stream())
                .distinct()
                .toList();
    }

    private static float[] logits(Model model) {
        try (Session session = TestModels.runtime().open(Widening.widen(model), false)) {
            return CausalLm.of(session, model.graph())
                    .logits(new long[][] {{1, 17, 103, 8, 51}})
                    .toFloats();
        }
    }

    @ParameterizedTest
    @MethodSource("models")
    void everyLinearLayerGetsItsOwnBiasWithoutEffect(String name) {
        Structure structure = TestModels.structure(name);
        List<LinearLayer> linearLayers = linearLayers(structure);
        Model completed = OutputBiases.complete(structure, linearLayers);
        GraphChecker.check(completed, "biases");
        Structure after = TestModels.structure(completed);

        assertThat(logits(completed))
                .isEqualTo(logits(structure.analysis().program().model()));
        assertThat(after.dimensions().stream().map(Dimension::name))
                .containsExactlyElementsOf(
                        structure.dimensions().stream().map(Dimension::name).toList());
        LinearLayers consumers = LinearLayers.of(after);
        long added = 0;
        for (LinearLayer layer : linearLayers) {
            LinearLayer same = consumers.ofWeight(layer.weight().name());
            assertThat(new OutputBiases(after).of(same)).as(layer.node()).isNotEmpty();
            added += new OutputBiases(structure).of(layer).isEmpty() ? layer.outputs() : 0;
        }
        assertThat(ParameterCount.of(after).dense().parameters())
                .isEqualTo(ParameterCount.of(structure).dense().parameters() + added);
        assertThat(OutputBiases.complete(after, linearLayers(after))).isSameAs(completed);
    }

    @ParameterizedTest
    @MethodSource("models")
    void biasesAreOrdinaryWeights(String name) {
        Structure before = TestModels.structure(name);
        if (linearLayers(before).isEmpty()) {
            assertThat(name).contains("int4");
            return;
        }
        Structure structure = TestModels.structure(OutputBiases.complete(before, linearLayers(before)));
        Random random = new Random(23);
        Map<Value, Tensor> updates = new HashMap<>();
        for (LinearLayer layer : linearLayers(structure)) {
            for (Value bias : new OutputBiases(structure).of(layer)) {
                float[] values = new float[layer.outputs()];
                for (int i = 0; i < values.length; i++) {
                    values[i] = (float) (0.05 * random.nextGaussian());
                }
                updates.put(
                        bias,
                        Tensor.ofFloats(bias.constant().dtype(), bias.constant().shape(), values));
            }
        }
        Map<String, int[]> keep = new LinkedHashMap<>();
        structure.dimensions().stream()
                .filter(dimension -> dimension.isPrunable()
                        && (prunable(structure).contains(dimension)
                                || dimension.name().equals("hidden")))
                .forEach(dimension -> keep.put(
                        dimension.name(),
                        IntStream.range(0, dimension.size())
                                .filter(unit -> unit % 4 != 1)
                                .toArray()));
        Plan plan = new Plan("", keep, null, null);
        Path written = folder.resolve("pruned.onnx");
        ModelWriter.write(Slicer.slice(structure, plan.keep(structure), updates), written, false);
        Plan keepAll = Plan.keepAll("");
        Path original = folder.resolve("whole.onnx");
        ModelWriter.write(structure.analysis().program().model(), original, false);

        assertThat(Verifier.compare(
                                new Verifier.Masked(structure, plan, updates), written, TestModels.runtime(), 1e-4, 1)
                        .relative())
                .isLessThan(1e-4);
        // The biases have an effect.
        assertThat(Verifier.compare(
                                new Verifier.Masked(structure, keepAll, updates),
                                original,
                                TestModels.runtime(),
                                1e-4,
                                1)
                        .relative())
                .isGreaterThan(1e-2);
    }

    /** Fusing exporters put biases in three places. */
    @ParameterizedTest
    @CsvSource({
        "stories-llama, 12, false",
        "opt-c, 4, true",
        "bloom-d, 4, true",
        "gpt2-g-merged, 4, true",
        "opt-f-a-bert, 4, true",
        "llama-g16-e-fp32, 4, false"
    })
    void existingBiasesAreFound(String name, int count, boolean hasBias) {
        Structure structure = TestModels.structure(name);
        List<LinearLayer> linearLayers = linearLayers(structure);

        assertThat(linearLayers).hasSize(count);
        assertThat(linearLayers)
                .allSatisfy(layer -> assertThat(
                                new OutputBiases(structure).of(layer).isEmpty())
                        .isNotEqualTo(hasBias));
    }

    @Test
    void halfPrecisionLayersGetHalfPrecisionBiases() {
        Structure structure = TestModels.structure("llama-g16-e-fp16");
        Structure after = TestModels.structure(OutputBiases.complete(structure, linearLayers(structure)));

        assertThat(linearLayers(after))
                .isNotEmpty()
                .allSatisfy(layer -> assertThat(new OutputBiases(after).of(layer))
                        .allSatisfy(bias -> assertThat(bias.constant().dtype()).isEqualTo(DType.FLOAT16)));
    }

    /** Exporters share equal constants; here the biases of two layers. */
    @Test
    void aSharedBiasIsCopied() {
        Structure before = TestModels.structure("opt-c");
        List<LinearLayer> linearLayers = linearLayers(before);
        Value bias = new OutputBiases(before).of(linearLayers.get(0)).get(0);
        Value other = new OutputBiases(before).of(linearLayers.get(1)).get(0);
        GraphEditor editor = new GraphEditor(before.analysis().program().model());
        other.uses().forEach(use -> editor.setInput(use.op().node(), use.input(), bias.name()));
        Structure structure = TestModels.structure(editor.apply(Map.of()));
        assertThat(linearLayers(structure))
                .extracting(layer -> new OutputBiases(structure).of(layer).size())
                .containsExactly(0, 0, 1, 1);

        LinearLayer first =
                LinearLayers.of(structure).ofWeight(linearLayers.get(0).weight().name());
        Structure after = TestModels.structure(OutputBiases.complete(structure, List.of(first)));
        assertThat(linearLayers(after))
                .allSatisfy(
                        layer -> assertThat(new OutputBiases(after).of(layer)).hasSize(1));
        LinearLayer same = LinearLayers.of(after).ofWeight(first.weight().name());
        Value own = new OutputBiases(after).of(same).get(0);
        assertThat(own.constant().toFloats()).isEqualTo(bias.constant().toFloats());
        assertThat(own.name()).isNotEqualTo(bias.name());
        assertThat(after.analysis().program().ops())
                .hasSameSizeAs(structure.analysis().program().ops());
    }
}
