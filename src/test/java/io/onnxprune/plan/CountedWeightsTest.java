// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.abort;

import io.onnxprune.TestModels;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.FunctionInliner;
import io.onnxprune.onnx.ModelReader;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * The parameters of a model are the elements of all its weights. The counter here knows nothing of dimensions: it leaves
 * out what has the contents of a rotary table or a mask, and the scales and zero points of the operators that the models have.
 */
@Tag("ort")
class CountedWeightsTest {
    static List<String> models() {
        return TestModels.allNames();
    }

    @ParameterizedTest
    @MethodSource("models")
    void theParametersAreTheElementsOfAllWeights(String name) {
        Structure structure = TestModels.structure(name);

        assertThat(ParameterCount.of(structure).dense().parameters())
                .isEqualTo(new Counter()
                        .count(FunctionInliner.inline(
                                        structure.analysis().program().model())
                                .graph()));
    }

    static List<String> cases() {
        return TestModels.cases();
    }

    /** A case that cannot be analysed is skipped. */
    @ParameterizedTest
    @MethodSource("cases")
    void theParametersOfACaseAreTheElementsOfAllWeights(String name) {
        Path file = TestModels.caseFile(name);
        Structure structure = null;
        try {
            structure = TestModels.structure(FunctionInliner.inline(ModelReader.read(file)));
        } catch (UserException e) {
            abort(name + " cannot be analysed: " + e.getMessage());
        }

        assertThat(ParameterCount.of(structure).dense().parameters())
                .isEqualTo(new Counter()
                        .count(structure.analysis().program().model().graph()));
    }

    /** The true numbers are counted by hand. */
    @ParameterizedTest
    @CsvSource({
        "07-gptoss-moe/model, 112472",
        "07-gptoss-moe/model_b, 160576",
        "08-qdq-int4-block/model, 110912",
        "08-qdq-int4-block/model_b, 110912",
        "10-kv-shared-ple/model, 139128",
        "13-mla/model, 107156",
        "26-int8-fused-ops/model, 110912",
    })
    void weightsCountWhateverReadsThem(String name, long parameters) {
        Structure structure = TestModels.structure(ModelReader.read(TestModels.caseFile(name)));

        assertThat(ParameterCount.of(structure).dense().parameters()).isEqualTo(parameters);
    }

    private static final class Counter {
        private static final Tensor NOTHING = Tensor.ofFloats(DType.FLOAT, new long[] {0});

        private final Map<String, Tensor> constants = new HashMap<>();
        private final Map<Tensor, Long> parameters = new HashMap<>();
        private final Set<Tensor> encodings = new HashSet<>();

        long count(Graph graph) {
            visit(graph);
            parameters.keySet().removeAll(encodings);
            return parameters.values().stream().mapToLong(Long::longValue).sum();
        }

        private void visit(Graph graph) {
            graph.initializers().forEach(this::define);
            for (Node node : graph.nodes()) {
                for (Attribute attribute : node.attributes().values()) {
                    if (attribute instanceof Attribute.Constant constant && node.is("Constant")) {
                        define(node.output(0), constant.tensor());
                    } else if (attribute instanceof Attribute.Body body) {
                        visit(body.graph());
                    }
                }
                if (node.is("MatMulNBits")) {
                    long weights = node.intAttribute("N", 0) * node.intAttribute("K", 0);
                    parameters.put(constants.get(node.input(1)), weights);
                }
                if (node.is("QMoE")) {
                    for (int input : new int[] {2, 5, 8}) {
                        long each = 8 / node.intAttribute("expert_weight_bits", 4);
                        parameters.computeIfPresent(
                                constants.getOrDefault(node.input(input), NOTHING), (tensor, count) -> each * count);
                        encoding(node, input + 1);
                    }
                    encoding(node, 11, 12, 13);
                }
                if (node.is("MatMulNBits") || node.is("GatherBlockQuantized") || node.is("DynamicQuantizeMatMul")) {
                    encoding(node, 2, 3);
                } else if (node.is("DequantizeLinear")) {
                    encoding(node, 1, 2);
                } else if (node.is("MatMulInteger")) {
                    encoding(node, 2, 3);
                }
            }
        }

        private void encoding(Node node, int... inputs) {
            for (int input : inputs) {
                encodings.add(constants.get(node.input(input)));
            }
        }

        private void define(String name, Tensor tensor) {
            constants.put(name, tensor);
            DType dtype = tensor.dtype();
            boolean number = dtype.isFloat() || dtype.bits() <= 8 && dtype != DType.BOOL;
            if (number && tensor.rank() > 0 && tensor.elements() > 1 && !isTable(tensor)) {
                parameters.put(tensor, tensor.elements());
            }
        }

        private static boolean isTable(Tensor tensor) {
            if (!tensor.dtype().isFloat() || tensor.elements() > 1 << 16) {
                return false;
            }
            float[] values = tensor.toFloats();
            return isMask(values) || isRotary(values, tensor);
        }

        /** Zeros beside what hides a score. */
        private static boolean isMask(float[] values) {
            boolean hides = false;
            for (float value : values) {
                if (value != 0 && value > -1e4) {
                    return false;
                }
                hides |= value != 0;
            }
            return hides;
        }

        /** Frequencies 1, r, r², ... with r < 1, or cosines or sines of whole multiples of them. */
        private static boolean isRotary(float[] values, Tensor tensor) {
            boolean frequencies = values.length > 1 && values[0] == 1 && values[1] < 0.9;
            for (int i = 1; i + 1 < values.length; i++) {
                frequencies &= Math.abs(values[i] * values[i] - values[i - 1] * values[i + 1]) < 1e-4 * values[i];
            }
            int width = (int) tensor.dim(tensor.rank() - 1);
            boolean angles = tensor.rank() == 2 && tensor.dim(0) > 1;
            for (int i = 0; angles && i < width; i++) {
                double expected = values[0] == 1 ? Math.cos(1) : Math.sin(1);
                angles = values[i] == values[0] && (i > 0 || Math.abs(values[width] - expected) < 1e-3);
            }
            return frequencies || angles;
        }
    }
}
