// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.GraphParser;
import io.onnxprune.ir.Model;
import io.onnxprune.lower.Lowering;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/**
 * Gradients through the choice of experts, compared with the change of the loss when a weight is changed: of the
 * experts, of the gates, and of what comes before.
 */
@Tag("ort")
class ExpertGradientTest {
    /** A decoder around {@code experts}, which computes y from x [batch, length, 8] and logits of the router. */
    private static Model decoder(String weights, String experts) {
        return GraphParser.parse("""
                ir_version 10
                opset "" 21
                opset "com.microsoft" 1
                main (int64[batch,length] input_ids) => (float[batch,length,64] logits)
                  <float[64,8] table = random(1)>
                  <float[8,4] router = random(2)>
                  <float[8,64] head = random(3)>
                  <int64[2] rows = [-1, 4]>
                  %s
                {
                  x = Gather (table, input_ids)
                  scores = MatMul (x, router)
                  flat = Reshape (scores, rows)
                  %s
                  sum = Add (x, y)
                  logits = MatMul (sum, head)
                }
                """.formatted(weights, experts));
    }

    private static void assertGradients(Model model) {
        Model lowered = Lowering.lower(model, TestModels.runtime(), 9, Log.NONE);
        assertThat(lowered.graph().nodes()).noneMatch(node -> node.op().endsWith("MoE"));
        assertThat(ModelGradientTest.disagreements(model)).isEmpty();
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "activation_type = \"silu\", k = 2",
                "activation_type = \"gelu\", k = 1",
                "activation_type = \"relu\", k = 3, normalize_routing_weights = 1"
            })
    void fusedExperts(String options) {
        assertGradients(
                decoder("""
                <float[4,6,8] up = random(4)> <float[4,6] upBias = random(5)>
                <float[4,8,6] down = random(6)> <float[4,8] downBias = random(7)>""", "y = com.microsoft.MoE <%s> (x, flat, up, upBias, down, downBias)".formatted(options)));
    }

    @Test
    void fusedGatedExperts() {
        assertGradients(decoder("<float[4,12,8] up = random(4)> <float[4,8,6] down = random(6)>", """
                y = com.microsoft.MoE <activation_type = "swiglu", activation_alpha = 1.5, activation_beta = 1.0, k = 2, \
                normalize_routing_weights = 1, swiglu_fusion = 1, swiglu_limit = 2.0> (x, flat, up, "", down)"""));
    }

    @Test
    void quantisedExperts() {
        assertGradients(decoder("""
                <uint8[4,12,4] up = random(4)> <float[4,12] upScales = random(5)>
                <uint8[4,8,3] down = random(6)> <float[4,8] downScales = random(7)>""", """
                y = com.microsoft.QMoE <activation_type = "swiglu", expert_weight_bits = 4, k = 2, \
                normalize_routing_weights = 1, swiglu_fusion = 1> (x, flat, up, upScales, "", down, downScales)"""));
    }

    /** Matrices of the chosen experts are taken out of their stacks, on the right and on the left of a product. */
    @ParameterizedTest
    @ValueSource(strings = {"right", "left"})
    void stackedExperts(String side) {
        boolean left = side.equals("left");
        String products = left ? """
                        row = Unsqueeze (repeated, two)
                          first = GatherND (up, index)
                          inner = MatMul (first, row)
                          active = Relu (inner)
                          second = GatherND (down, index)
                          column = MatMul (second, active)
                          result = Squeeze (column, two)""" : """
                        row = Unsqueeze (repeated, one)
                          first = Gather (up, chosen)
                          inner = MatMul (row, first)
                          active = Relu (inner)
                          second = Gather (down, chosen)
                          column = MatMul (active, second)
                          result = Squeeze (column, one)""";
        Model model = decoder(
                (left
                                ? "<float[4,6,8] up = random(4)> <float[4,8,6] down = random(5)>"
                                : "<float[4,8,6] up = random(4)> <float[4,6,8] down = random(5)>")
                        + """
                        <int64[1] k = [2]> <int64[1] one = [1]> <int64[1] two = [2]> <int64[1] every = [-1]>
                        <int64[2] tokens = [-1, 8]> <int64[3] pairs = [-1, 2, 8]> <int64[2] doubled = [1, 2]>""",
                """
                gates, experts = TopK (flat, k)
                  shares = Softmax <axis = -1> (gates)
                  chosen = Reshape (experts, every)
                  index = Unsqueeze (chosen, one)
                  token = Reshape (x, tokens)
                  wide = Tile (token, doubled)
                  repeated = Reshape (wide, tokens)
                  %s
                  pair = Reshape (result, pairs)
                  share = Unsqueeze (shares, two)
                  weighted = Mul (pair, share)
                  mixed = ReduceSum <keepdims = 0> (weighted, one)
                  shape = Shape (x)
                  y = Reshape (mixed, shape)""".formatted(products));
        Model lowered = Lowering.lower(model, TestModels.runtime(), 9, Log.NONE);
        assertThat(lowered.graph().nodes()).noneMatch(node -> node.is("GatherND"));
        assertThat(lowered.graph().nodes().stream().filter(node -> node.is("MatMul")))
                .as("router, two products of each of four experts, and the output layer")
                .hasSize(10);
        assertGradients(model);
    }
}
