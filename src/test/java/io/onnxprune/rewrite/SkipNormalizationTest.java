// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.PassTester;
import io.onnxprune.dims.ResidualStream;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program;
import java.util.List;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

@Tag("ort")
class SkipNormalizationTest {
    /** Takes all skip normalisations apart that yield their first result only. */
    private static Model separate(Model model) {
        List<Node> nodes = Program.of(model).ops().stream()
                .flatMap(op -> ResidualStream.isSkipNormalization(op) && op.output(3) == null
                        ? SkipNormalization.separate(op.node(), op.output(0) + "_sum").stream()
                        : Stream.of(op.node()))
                .toList();
        return model.withGraph(model.graph().withNodes(nodes));
    }

    /** y = LayerNorm(x + skip + bias) becomes two additions and a LayerNormalization with scale and shift. */
    @Test
    void aCentredOneWithAllOperands() {
        PassTester.on("""
                ir_version 9
                opset "" 18
                opset "com.microsoft" 1
                main (float[b,s,4] x, float[b,s,4] skip) => (float[b,s,4] y)
                  <float[4] scale = [1.0, 0.5, -2.0, 3.0]>
                  <float[4] shift = [0.1, 0.2, 0.3, 0.4]>
                  <float[4] bias = [5.0, -5.0, 0.0, 1.0]>
                {
                  y = com.microsoft.SkipLayerNormalization <epsilon = 0.1> (x, skip, scale, shift, bias)  # norm
                }
                """).runs(SkipNormalizationTest::separate).yields("""
                ir_version 9
                opset "" 18
                opset "com.microsoft" 1
                main (float[b,s,4] x, float[b,s,4] skip) => (float[b,s,4] y)
                  <float[4] scale = [1.0, 0.5, -2.0, 3.0]>
                  <float[4] shift = [0.1, 0.2, 0.3, 0.4]>
                  <float[4] bias = [5.0, -5.0, 0.0, 1.0]>
                {
                  y_sum_unbiased = Add (x, skip)  # y_sum_unbiased
                  y_sum = Add (y_sum_unbiased, bias)  # y_sum
                  y = LayerNormalization <axis = -1, epsilon = 0.1, stash_type = 1> (y_sum, scale, shift)  # norm
                }
                """).computesTheSame();
    }

    /** y = LayerNorm(x + skip): no shift and no bias, and the epsilon of the operator where none is given. */
    @Test
    void aCentredOneWithoutOptionalOperands() {
        PassTester.on("""
                ir_version 9
                opset "" 18
                opset "com.microsoft" 1
                main (float[b,s,4] x, float[b,s,4] skip) => (float[b,s,4] y)
                  <float[4] scale = [1.0, 0.5, -2.0, 3.0]>
                {
                  y, "", "", "" = com.microsoft.SkipLayerNormalization (x, skip, scale)  # norm
                }
                """).runs(SkipNormalizationTest::separate).yields("""
                ir_version 9
                opset "" 18
                opset "com.microsoft" 1
                main (float[b,s,4] x, float[b,s,4] skip) => (float[b,s,4] y)
                  <float[4] scale = [1.0, 0.5, -2.0, 3.0]>
                {
                  y_sum = Add (x, skip)  # y_sum
                  y = LayerNormalization <axis = -1, epsilon = 1.0E-12, stash_type = 1> (y_sum, scale)  # norm
                }
                """).computesTheSame();
    }

    /** y = RmsNorm(x + skip + bias): its fourth operand is the bias, not a shift. */
    @Test
    void aSimplifiedOneWithBias() {
        PassTester.on("""
                ir_version 9
                opset "" 18
                opset "com.microsoft" 1
                main (float[b,s,4] x, float[b,s,4] skip) => (float[b,s,4] y)
                  <float[4] scale = [1.0, 0.5, -2.0, 3.0]>
                  <float[4] bias = [5.0, -5.0, 0.0, 1.0]>
                {
                  y = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 1.0E-5> (x, skip, scale, bias)  # norm
                }
                """).runs(SkipNormalizationTest::separate).yields("""
                ir_version 9
                opset "" 18
                opset "com.microsoft" 1
                main (float[b,s,4] x, float[b,s,4] skip) => (float[b,s,4] y)
                  <float[4] scale = [1.0, 0.5, -2.0, 3.0]>
                  <float[4] bias = [5.0, -5.0, 0.0, 1.0]>
                {
                  y_sum_unbiased = Add (x, skip)  # y_sum_unbiased
                  y_sum = Add (y_sum_unbiased, bias)  # y_sum
                  y = SimplifiedLayerNormalization <axis = -1, epsilon = 1.0E-5, stash_type = 1> (y_sum, scale)  # norm
                }
                """).computesTheSame();
    }

    /** A normalisation without an addition is no skip normalisation, and one that yields its sum needs no separation. */
    @Test
    void otherNormalisationsAreLeftAlone() {
        PassTester.on("""
                ir_version 9
                opset "" 18
                opset "com.microsoft" 1
                main (float[b,s,4] x, float[b,s,4] skip) => (float[b,s,4] y, float[b,s,4] z, float[b,s,4] sum)
                  <float[4] scale = [1.0, 0.5, -2.0, 3.0]>
                {
                  y = LayerNormalization <axis = -1> (x, scale)
                  z, "", "", sum = com.microsoft.SkipSimplifiedLayerNormalization (y, skip, scale)
                }
                """).runs(SkipNormalizationTest::separate).doesNotChange().computesTheSame();
    }
}
