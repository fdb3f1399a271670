// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

/** Operators of old sets compute the same results in their new form. */
@Tag("ort")
class OpsetFormsTest {
    private static Attribute number(long value) {
        return new Attribute.Int(value);
    }

    /**
     * An operator of an old set, applied to {@code [batch, length, 4, 6]}, with its attributes and number of results.
     */
    private record Old(long opset, String operator, Map<String, Attribute> attributes, int results) {
        private Arguments arguments() {
            return Arguments.of(opset, operator, attributes, results);
        }
    }

    static Stream<Arguments> operators() {
        Stream<Old> reductions = Stream.of(
                        "ReduceSum",
                        "ReduceMean",
                        "ReduceMax",
                        "ReduceMin",
                        "ReduceProd",
                        "ReduceL1",
                        "ReduceL2",
                        "ReduceLogSumExp",
                        "ReduceSumSquare")
                .flatMap(operator -> Stream.of(
                        new Old(11, operator, Map.of("axes", RewriteContext.ints(-1)), 1),
                        new Old(12, operator, Map.of("axes", RewriteContext.ints(1, 2), "keepdims", number(0)), 1),
                        new Old(11, operator, Map.of(), 1)));
        Stream<Old> normalizations = Stream.of("Softmax", "LogSoftmax", "Hardmax")
                .flatMap(operator -> Stream.of(
                        new Old(11, operator, Map.of(), 1),
                        new Old(12, operator, Map.of("axis", number(2)), 1),
                        new Old(12, operator, Map.of("axis", number(-1)), 1),
                        new Old(13, operator, Map.of(), 1),
                        new Old(13, operator, Map.of("axis", number(1)), 1)));
        Stream<Old> others = Stream.of(
                new Old(17, "ReduceMean", Map.of("axes", RewriteContext.ints(-1)), 1),
                new Old(11, "Unsqueeze", Map.of("axes", RewriteContext.ints(0, -1)), 1),
                new Old(11, "Split", Map.of("axis", number(3), "split", RewriteContext.ints(1, 3, 2)), 3),
                new Old(11, "Split", Map.of("axis", number(2)), 2),
                new Old(13, "Split", Map.of("axis", number(-1)), 3),
                new Old(
                        9,
                        "Slice",
                        Map.of(
                                "starts",
                                RewriteContext.ints(1),
                                "ends",
                                RewriteContext.ints(5),
                                "axes",
                                RewriteContext.ints(3)),
                        1),
                new Old(9, "Slice", Map.of("starts", RewriteContext.ints(0, 1), "ends", RewriteContext.ints(1, 9)), 1),
                new Old(10, "Clip", Map.of("min", new Attribute.Real(-0.5f), "max", new Attribute.Real(0.3f)), 1),
                new Old(9, "Clip", Map.of("max", new Attribute.Real(0.3f)), 1),
                new Old(
                        10,
                        "Pad",
                        Map.of("pads", RewriteContext.ints(0, 1, 0, 0, 0, 0, 0, 2), "value", new Attribute.Real(3)),
                        1),
                new Old(9, "TopK", Map.of("k", number(2), "axis", number(-1)), 2),
                new Old(11, "Dropout", Map.of("ratio", new Attribute.Real(0.5f)), 1));
        return Stream.of(reductions, normalizations, others)
                .flatMap(each -> each)
                .map(Old::arguments);
    }

    @ParameterizedTest
    @MethodSource("operators")
    void computesTheSame(long opset, String operator, Map<String, Attribute> attributes, int results) {
        FusedGraph g = new FusedGraph(1);
        int[] ranks = new int[results];
        g.test("", operator, List.of(g.operand(4, 6)), attributes, ranks);
        Model lowered = g.assertLowered(opset, 1e-6);
        assertThat(lowered.opset()).isEqualTo(20);
        assertThat(lowered.irVersion()).isGreaterThanOrEqualTo(9);
        for (Node node : lowered.graph().nodes()) {
            assertThat(node.attributes()).doesNotContainKeys("axes", "split", "starts", "min", "pads", "k");
        }
    }

    @Test
    void squeezesByInput() {
        FusedGraph g = new FusedGraph(1);
        g.test("", "Squeeze", List.of(g.operand(1, 6)), Map.of("axes", RewriteContext.ints(2)), 3);
        g.assertLowered(11, 0);
    }

    @Test
    void dropsDropoutWithInputs() {
        FusedGraph g = new FusedGraph(1);
        g.test("", "Dropout", List.of(g.operand(6), g.graph().scalar(0.5f)), Map.of(), 3, 3);
        g.assertLowered(13, 0);
    }

    @Test
    void keepsNewerOperatorSets() {
        FusedGraph g = new FusedGraph(1);
        g.test("", "Relu", List.of(g.operand(6)), Map.of(), 3);
        assertThat(g.assertLowered(21, 0).opset()).isEqualTo(21);
    }

    @Test
    void rejectsOperatorSetsWithoutBroadcasting() {
        FusedGraph g = new FusedGraph(1);
        g.test("", "Relu", List.of(g.operand(6)), Map.of(), 3);
        assertThatThrownBy(() -> Lowering.lower(g.model(6), TestModels.runtime(), 7, Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("opset 6");
    }

    /** Small half-precision constants become float32; large ones are cast at their use. */
    @ParameterizedTest
    @CsvSource({"6, false", "6000, true"})
    void liftsConstants(int width, boolean cast) {
        FusedGraph g = new FusedGraph(1);
        float[] values = new float[width];
        Arrays.fill(values, 0.5f);
        Tensor half = Tensor.ofFloats(DType.FLOAT16, new long[] {width}, values);
        g.graph().add(Node.of("c", "Constant", List.of(), List.of("c"), Map.of("value", new Attribute.Constant(half))));
        String x = g.cast(g.operand(width), DType.FLOAT16);
        g.test("", "Mul", List.of(x, "c"), Map.of(), 3);
        Model lowered = g.assertLowered(18, 2e-3);
        assertThat(lowered.graph().initializers().get("c").dtype()).isEqualTo(cast ? DType.FLOAT16 : DType.FLOAT);
        assertThat(lowered.graph().nodes()).noneMatch(node -> node.is("Constant"));
    }
}
