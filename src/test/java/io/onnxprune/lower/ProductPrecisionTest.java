// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.PassTester;
import io.onnxprune.TestModels;
import io.onnxprune.ir.GraphParser;
import io.onnxprune.ir.Model;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.RuntimeOptions;
import io.onnxprune.runtime.RuntimeOptions.Precision;
import io.onnxprune.runtime.Session;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

/** Products in 16-bit types, in the form for a GPU and in the form for the CPU. */
@Tag("ort")
class ProductPrecisionTest {
    private static final RuntimeOptions CUDA =
            new RuntimeOptions(RuntimeOptions.Provider.CUDA, 0, 0, Optional.empty(), Precision.FLOAT32);

    private static Model on(RuntimeOptions options, Precision precision, Model model) {
        return ProductPrecision.of(model, Map.of(), Set.of(), options.with(precision));
    }

    /** The weight is stored in float16 after the rewrite, and x is cast once. */
    @Test
    void operandsAreCastAndWeightsAreStored() {
        PassTester.on("""
                ir_version 9
                opset "" 17
                main (float[rows,2] x) => (float[rows,2] y, float[rows,2] z)
                  <float[2,2] w = [1.0, 0.5, -2.0, 3.0]>
                {
                  y = MatMul (x, w)  # first
                  t = Transpose <perm = [1, 0]> (w)
                  z = MatMul (x, t)
                }
                """)
                .runs(model -> on(CUDA, Precision.FLOAT16, model))
                .yields("""
                ir_version 9
                opset "" 17
                main (float[rows,2] x) => (float[rows,2] y, float[rows,2] z)
                  <float16[2,2] onnx_prune_precision_1 = [1.0, 0.5, -2.0, 3.0]>
                {
                  onnx_prune_precision_0 = Cast <to = 10> (x)  # onnx_prune_precision_0
                  onnx_prune_precision_2 = MatMul (onnx_prune_precision_0, onnx_prune_precision_1)  # onnx_prune_precision_2
                  y = Cast <to = 1> (onnx_prune_precision_2)  # first
                  onnx_prune_precision_3 = Transpose <perm = [1, 0]> (onnx_prune_precision_1)  # onnx_prune_precision_3
                  onnx_prune_precision_4 = MatMul (onnx_prune_precision_0, onnx_prune_precision_3)  # onnx_prune_precision_4
                  z = Cast <to = 1> (onnx_prune_precision_4)
                }
                """)
                .computesTheSame();
    }

    /** A weight of this type is not widened first. One of another type is converted, and the bias stays float32. */
    @Test
    void storedHalvesAreUsedAsTheyAre() {
        PassTester.on("""
                ir_version 9
                opset "" 17
                main (float[rows,2] x) => (float[rows,2] z)
                  <float16[2,2] same = [1.0, 0.5, -2.0, 3.0]>
                  <bfloat16[2,2] other = [1.0, 0.5, -2.0, 3.0]>
                  <float[2] c = [0.3, 0.7]>
                {
                  a = Cast <to = 1> (same)
                  b = Cast <to = 1> (other)
                  y = MatMul (x, a)
                  z = Gemm <transB = 1, alpha = 0.5, beta = 2.0> (y, b, c)
                }
                """).runs(model -> on(CUDA, Precision.FLOAT16, model)).yields("""
                ir_version 9
                opset "" 17
                main (float[rows,2] x) => (float[rows,2] z)
                  <float16[2,2] same = [1.0, 0.5, -2.0, 3.0]>
                  <float[2] c = [0.3, 0.7]>
                  <float16[2,2] onnx_prune_precision_3 = [1.0, 0.5, -2.0, 3.0]>
                  <float[] onnx_prune_precision_5 = [2.0]>
                {
                  onnx_prune_precision_0 = Cast <to = 10> (x)  # onnx_prune_precision_0
                  onnx_prune_precision_1 = MatMul (onnx_prune_precision_0, same)  # onnx_prune_precision_1
                  y = Cast <to = 1> (onnx_prune_precision_1)
                  onnx_prune_precision_2 = Cast <to = 10> (y)  # onnx_prune_precision_2
                  onnx_prune_precision_4 = Gemm <transB = 1, alpha = 0.5> (onnx_prune_precision_2, onnx_prune_precision_3)  # onnx_prune_precision_4
                  onnx_prune_precision_6 = Mul (c, onnx_prune_precision_5)  # onnx_prune_precision_6
                  onnx_prune_precision_7 = Cast <to = 1> (onnx_prune_precision_4)  # onnx_prune_precision_7
                  z = Add (onnx_prune_precision_7, onnx_prune_precision_6)
                }
                """);
    }

    @ParameterizedTest
    @EnumSource(Precision.class)
    void otherTypesStay(Precision precision) {
        PassTester.on("""
                ir_version 9
                opset "" 17
                main (double[rows,2] x, int64[2,2] i) => (double[rows,2] y, int64[2,2] j)
                {
                  j = MatMul (i, i)
                  d = Cast <to = 11> (j)
                  y = MatMul (x, d)
                }
                """).runs(model -> on(CUDA, precision, model)).doesNotChange();
    }

    @ParameterizedTest
    @EnumSource(
            value = Precision.class,
            names = {"FLOAT32", "TF32"})
    void float32ProductsStay(Precision precision) {
        Model model = GraphParser.parse(PRODUCT);

        assertThat(on(CUDA, precision, model)).isSameAs(model);
    }

    @Test
    void exactProductsStay() {
        Model model = GraphParser.parse(PRODUCT);

        Model changed = ProductPrecision.of(model, Map.of(), Set.of("y"), CUDA.with(Precision.BFLOAT16));

        assertThat(changed.graph().nodes()).isEqualTo(model.graph().nodes());
    }

    private static final String PRODUCT = """
            ir_version 9
            opset "" 17
            main (float[1,1] x) => (float[1,1] y)
              <float[1,1] w = [3.0]>
            {
              y = MatMul (x, w)
            }
            """;

    /** The operand 1 + 2⁻⁸ and the result 771 have a bit more than bfloat16; 1 + 2⁻¹¹ and 6147 more than float16. */
    @ParameterizedTest
    @CsvSource({
        "BFLOAT16, 1.00390625, 3",
        "BFLOAT16, 1.0078125, 3.03125",
        "BFLOAT16, 257, 768",
        "FLOAT16, 1.00048828125, 3",
        "FLOAT16, 1.0009765625, 3.00390625",
        "FLOAT16, 2049, 6144"
    })
    void theCpuRoundsOperandsAndResults(Precision precision, float operand, float expected) {
        Model model = on(RuntimeOptions.cpu(), precision, GraphParser.parse(PRODUCT));
        HostTensor x = HostTensor.ofFloat32(new long[] {1, 1}, operand);

        try (Session session = TestModels.runtime().open(model, true);
                Outputs outputs = session.run(Map.of("x", x), List.of("y"))) {
            assertThat(outputs.tensor("y").toFloats()).containsExactly(expected);
        }
    }
}
