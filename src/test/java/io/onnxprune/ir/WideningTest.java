// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.onnx.ModelWriter;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
class WideningTest {
    private static final long[][] TOKENS = {{5, 200, 17, 31, 99, 4}};

    @TempDir
    private Path folder;

    @ParameterizedTest
    @ValueSource(strings = {"llama-g16-e-fp16", "llama-mha-e-mha16", "stories260k-g-fp16", "stories260k-hd16-e-fp16"})
    void aWidenedModelComputesTheSameMorePrecisely(String name) {
        Path half = TestModels.file(name);
        Model widened = Widening.widen(ModelReader.read(half));
        assertThat(widened.graph().inputs()).noneMatch(input -> input.dtype() == DType.FLOAT16);
        Path file = folder.resolve("widened.onnx");
        ModelWriter.write(widened, file, false);

        float[] expected = logits(half);
        float[] found = logits(file);
        double scale = 0;
        double difference = 0;
        for (int i = 0; i < expected.length; i++) {
            scale = Math.max(scale, Math.abs(expected[i]));
            difference = Math.max(difference, Math.abs(expected[i] - found[i]));
        }
        // Half precision has eleven bits of mantissa. A difference of zero would mean that nothing was widened.
        assertThat(difference / scale).isBetween(1e-7, 2e-2);
    }

    @Test
    void weightsStayHalf() {
        Model model = ModelReader.read(TestModels.file("llama-g16-e-fp16"));

        assertThat(Widening.widen(model).graph().initializers())
                .isEqualTo(model.graph().initializers());
    }

    /** The casts come first, and the logits are bit for bit those of shared casts. */
    @Test
    void everyUseMayHaveACastOfItsOwn() {
        Model widened = Widening.widen(ModelReader.read(TestModels.file("llama-g16-e-fp16")));
        Path shared = folder.resolve("shared.onnx");
        Path own = folder.resolve("own.onnx");
        ModelWriter.write(widened, shared, false);

        Model changed = Widening.castAtUse(widened);
        ModelWriter.write(changed, own, false);

        List<Node> nodes = changed.graph().nodes();
        List<Node> casts = nodes.stream()
                .takeWhile(node -> node.output(0).startsWith("onnx_prune_widened_at_use_"))
                .toList();
        assertThat(casts).isNotEmpty();
        for (Node cast : casts) {
            assertThat(nodes.stream().flatMap(node -> node.inputs().stream()))
                    .filteredOn(cast.output(0)::equals)
                    .hasSize(1);
        }
        assertThat(logits(own)).isEqualTo(logits(shared));
    }

    @Test
    void aModelWithoutHalvesIsNotChanged() {
        Model model = ModelReader.read(TestModels.file("llama-gqa-b"));

        assertThat(Widening.widen(model)).isSameAs(model);
    }

    private static float[] logits(Path file) {
        try (CausalLm decoder = CausalLm.open(TestModels.runtime(), file)) {
            return decoder.logits(TOKENS).toFloats();
        }
    }
}
