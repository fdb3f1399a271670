// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.ir.Widening;
import io.onnxprune.onnx.FunctionInliner;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;
import java.util.TreeSet;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** The lowered form of every export has the logits of the original and only standard operators. */
@Tag("ort")
@Tag("slow")
class LoweringTest {
    private static final OnnxRuntime RUNTIME = TestModels.runtime();
    private static final int LENGTH = 9;
    private static final int VOCABULARY = 60;

    private static final Set<String> REMOVED = Set.of("If", "Constant", "Dropout");

    static List<String> models() {
        return TestModels.allNames();
    }

    @ParameterizedTest
    @MethodSource("models")
    void givesTheLogitsOfTheOriginalWithStandardOperators(String name) {
        Model original = ModelReader.read(TestModels.file(name));
        Model lowered = Lowering.lower(original, RUNTIME, LENGTH, Log.NONE);
        assertStandard(original, lowered);
        Model reference = Widening.widen(original);
        for (int batch : List.of(2, 1)) {
            float[] expected;
            try {
                expected = logits(reference, batch);
            } catch (UserException e) {
                assertThat(batch)
                        .as("only models for single rows may refuse two")
                        .isEqualTo(2);
                continue;
            }
            assertClose(logits(lowered, batch), expected, tolerance(original));
        }
    }

    private static void assertStandard(Model original, Model lowered) {
        Set<String> strange = new TreeSet<>();
        for (Node node : lowered.graph().nodes()) {
            if (!node.domain().isEmpty() || REMOVED.contains(node.op())) {
                strange.add(node.label());
            }
        }
        assertThat(strange).isEmpty();
        assertThat(lowered.opset()).isGreaterThanOrEqualTo(Math.max(20, original.opset()));
        Set<String> inputs = names(original.graph().givenInputs());
        assertThat(inputs).containsAll(names(lowered.graph().inputs()));
        assertThat(names(original.graph().outputs()))
                .containsAll(names(lowered.graph().outputs()));
        Map<String, Tensor> before = FunctionInliner.inline(original).graph().initializers();
        lowered.graph().initializers().forEach((weight, tensor) -> {
            if (before.containsKey(weight)) {
                assertThat(tensor).as(weight).isSameAs(before.get(weight));
            }
        });
    }

    private static Set<String> names(List<ValueInfo> values) {
        Set<String> names = new TreeSet<>();
        values.forEach(value -> names.add(value.name()));
        return names;
    }

    /** The rounding of activations to 8 bits is not in the lowered form. */
    private static double tolerance(Model original) {
        boolean rounded = original.graph().nodes().stream().anyMatch(node -> node.is("DynamicQuantizeLinear"));
        return rounded ? 0.05 : 1e-4;
    }

    private static void assertClose(float[] actual, float[] expected, double tolerance) {
        assertThat(actual).hasSameSizeAs(expected);
        double scale = 0;
        double difference = 0;
        for (int i = 0; i < expected.length; i++) {
            assertThat(actual[i]).isFinite();
            scale = Math.max(scale, Math.abs(expected[i]));
            difference = Math.max(difference, Math.abs(actual[i] - expected[i]));
        }
        assertThat(difference).isLessThanOrEqualTo(tolerance * scale);
    }

    private static float[] logits(Model model, int batch) {
        Random random = new Random(3);
        long[][] tokens = new long[batch][LENGTH];
        for (long[] row : tokens) {
            for (int i = 0; i < LENGTH; i++) {
                row[i] = random.nextInt(VOCABULARY);
            }
        }
        try (Session session = RUNTIME.open(model, false)) {
            ModelInterface decoder = ModelInterface.of(session, model.graph());
            Map<String, HostTensor> feeds = decoder.wholeRows(tokens, 16);
            String logits = decoder.requireLogits().name();
            try (Outputs outputs = session.run(feeds, List.of(logits))) {
                return outputs.tensor(logits).toFloats();
            }
        }
    }
}
