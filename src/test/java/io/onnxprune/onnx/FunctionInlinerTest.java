// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.eval.CausalLm;
import io.onnxprune.ir.GraphChecker;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Test;

class FunctionInlinerTest {
    private static final Path WITH_FUNCTIONS = Path.of("testmodels", "llama-functions", "model.onnx");
    private static final Path WITHOUT = Path.of("testmodels", "llama-gqa-b", "model.onnx");

    @Test
    void callsBecomeBodies() {
        Model model = ModelReader.read(WITH_FUNCTIONS);
        Model inlined = FunctionInliner.inline(model);

        assertThat(model.graph().nodes()).anyMatch(FunctionInlinerTest::isCall);
        assertThat(inlined.graph().nodes())
                .noneMatch(FunctionInlinerTest::isCall)
                .hasSizeGreaterThan(model.graph().nodes().size());
        GraphChecker.check(inlined, "inline");
    }

    @Test
    void theInlinedModelComputesTheSame() {
        Model model = ModelReader.read(WITH_FUNCTIONS);

        assertThat(logits(FunctionInliner.inline(model))).containsExactly(logits(model));
    }

    @Test
    void aModelWithoutFunctionsIsNotChanged() {
        Model model = ModelReader.read(WITHOUT);

        assertThat(FunctionInliner.inline(model)).isSameAs(model);
    }

    private static boolean isCall(Node node) {
        return !node.domain().isEmpty() && !node.domain().equals("com.microsoft");
    }

    private static float[] logits(Model model) {
        byte[] serialized = ModelWriter.skeleton(model, tensor -> false);
        try (OnnxRuntime runtime = OnnxRuntime.open(RuntimeOptions.cpu());
                CausalLm decoder = CausalLm.of(runtime.open(serialized, Map.of(), false))) {
            return decoder.logits(new long[][] {{1, 2, 3, 4, 5}}).toFloats();
        }
    }
}
