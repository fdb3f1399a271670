// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import io.onnxprune.PassTester;
import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.ir.Model;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** The nodes that lowering writes for an operator, and operators that it leaves as they are. */
@Tag("ort")
class LoweredFormTest {
    private static final int LENGTH = 3;

    private static PassTester on(String text) {
        return PassTester.on(text).integersBelow(8);
    }

    private static Model lower(Model model) {
        return Lowering.lower(model, TestModels.runtime(), LENGTH, Log.NONE);
    }

    private static Model select(Model model) {
        return BranchSelection.select(model, TestModels.runtime(), LENGTH);
    }

    /** Result 3 is the sum with the bias; the mean of squares gets the epsilon of the node. */
    @Test
    void skipRootMeanSquareNormalization() {
        on("""
                ir_version 10
                opset "" 21
                opset "com.microsoft" 1
                main (int64[batch,length] input_ids) => (float[batch,length,4] logits)
                  <float[8,4] table = random(1)>
                  <float[8,4] other = random(2)>
                  <float[4] scale = [1.0, 0.5, -2.0, 3.0]>
                  <float[4] bias = [0.5, -0.5, 0.0, 1.0]>
                {
                  x = Gather (table, input_ids)
                  y = Gather (other, input_ids)
                  z, "", "", sum = com.microsoft.SkipSimplifiedLayerNormalization <epsilon = 0.1> (x, y, scale, bias)  # norm
                  logits = Sub (z, sum)
                }
                """).runs(LoweredFormTest::lower).yields("""
                ir_version 10
                opset "" 21
                opset "com.microsoft" 1
                main (int64[batch,length] input_ids) => (float[batch,length,4] logits)
                  <float[8,4] table = random(1)>
                  <float[8,4] other = random(2)>
                  <float[4] scale = [1.0, 0.5, -2.0, 3.0]>
                  <float[4] bias = [0.5, -0.5, 0.0, 1.0]>
                  <int64[1] onnx_prune_lowered_3 = [-1]>
                  <float[] onnx_prune_lowered_5 = [0.1]>
                {
                  x = Gather (table, input_ids)
                  y = Gather (other, input_ids)
                  onnx_prune_lowered_0 = Add (x, y)  # norm/Add
                  sum = Add (onnx_prune_lowered_0, bias)  # norm/Add_1
                  onnx_prune_lowered_2 = Mul (sum, sum)  # norm/Mul
                  onnx_prune_lowered_4 = ReduceMean (onnx_prune_lowered_2, onnx_prune_lowered_3)  # norm/ReduceMean
                  onnx_prune_lowered_6 = Add (onnx_prune_lowered_4, onnx_prune_lowered_5)  # norm/Add_2
                  onnx_prune_lowered_7 = Sqrt (onnx_prune_lowered_6)  # norm/Sqrt
                  onnx_prune_lowered_8 = Reciprocal (onnx_prune_lowered_7)  # norm/Reciprocal
                  onnx_prune_lowered_9 = Mul (sum, onnx_prune_lowered_8)  # norm/Mul_1
                  z = Mul (onnx_prune_lowered_9, scale)  # norm/Mul_2
                  logits = Sub (z, sum)
                }
                """).computesTheSame();
    }

    /** transB becomes a Transpose of the weight; the factor goes to the activation. */
    @Test
    void fusedMatMul() {
        on("""
                ir_version 10
                opset "" 21
                opset "com.microsoft" 1
                main (int64[batch,length] input_ids) => (float[batch,length,3] logits)
                  <float[8,4] table = random(1)>
                  <float[3,4] weight = random(2)>
                {
                  x = Gather (table, input_ids)
                  logits = com.microsoft.FusedMatMul <alpha = 0.5, transB = 1> (x, weight)  # product
                }
                """).runs(LoweredFormTest::lower).yields("""
                ir_version 10
                opset "" 21
                opset "com.microsoft" 1
                main (int64[batch,length] input_ids) => (float[batch,length,3] logits)
                  <float[8,4] table = random(1)>
                  <float[3,4] weight = random(2)>
                  <float[] onnx_prune_lowered_1 = [0.5]>
                {
                  x = Gather (table, input_ids)
                  onnx_prune_lowered_0 = Transpose <perm = [1, 0]> (weight)  # product/Transpose
                  onnx_prune_lowered_2 = Mul (x, onnx_prune_lowered_1)  # product/Mul
                  logits = MatMul (onnx_prune_lowered_2, onnx_prune_lowered_0)  # product/MatMul
                }
                """).computesTheSame();
    }

    /** An attribute that is an operand today becomes an initializer. A Softmax over two axes flattens them and back. */
    @Test
    void oldForms() {
        on("""
                ir_version 6
                opset "" 11
                main (int64[batch,length] input_ids) => (float[batch,length,4] logits)
                  <float[8,4] table = random(1)>
                {
                  x = Gather (table, input_ids)
                  mean = ReduceMean <axes = [-1], keepdims = 1> (x)  # mean
                  centred = Sub (x, mean)
                  logits = Softmax <axis = 1> (centred)  # softmax
                }
                """).runs(LoweredFormTest::lower).yields("""
                ir_version 9
                opset "" 20
                main (int64[batch,length] input_ids) => (float[batch,length,4] logits)
                  <float[8,4] table = random(1)>
                  <int64[1] onnx_prune_lowered_0 = [-1]>
                {
                  x = Gather (table, input_ids)
                  mean = ReduceMean <keepdims = 1> (x, onnx_prune_lowered_0)  # mean
                  centred = Sub (x, mean)
                  onnx_prune_lowered_1 = Flatten <axis = 1> (centred)  # softmax/Flatten
                  onnx_prune_lowered_2 = Softmax <axis = -1> (onnx_prune_lowered_1)  # softmax/Softmax
                  onnx_prune_lowered_3 = Shape (centred)  # softmax/Shape
                  logits = Reshape (onnx_prune_lowered_2, onnx_prune_lowered_3)  # softmax/Reshape
                }
                """).computesTheSame();
    }

    /** A guard against rows that are masked throughout is not needed; any other Where is. */
    @Test
    void guardedSoftmax() {
        String guarded = """
                ir_version 10
                opset "" 21
                main (int64[batch,length] input_ids) => (float[batch,length,4] logits)
                  <float[8,4] table = random(1)>
                  <float[] zero = [0.0]>
                {
                  x = Gather (table, input_ids)
                  p = Softmax <axis = -1> (x)
                  nan = IsNaN (p)
                  logits = Where (nan, zero, p)
                }
                """;
        on(guarded).runs(LoweredFormTest::lower).yields("""
                ir_version 10
                opset "" 21
                main (int64[batch,length] input_ids) => (float[batch,length,4] logits)
                  <float[8,4] table = random(1)>
                {
                  x = Gather (table, input_ids)
                  p = Softmax <axis = -1> (x)
                  logits = Identity (p)  # logits
                }
                """).computesTheSame();
        on(guarded.replace("IsNaN (p)", "IsNaN (x)"))
                .runs(LoweredFormTest::lower)
                .doesNotChange()
                .computesTheSame();
    }

    /** Standard operators in today's form. */
    @Test
    void standardOperatorsStay() {
        on("""
                ir_version 10
                opset "" 21
                main (int64[batch,length] input_ids) => (float[batch,length,4] logits)
                  <float[8,4] table = random(1)>
                  <float[4] scale = [1.0, 0.5, -2.0, 3.0]>
                  <int64[1] last = [-1]>
                {
                  x = Gather (table, input_ids)
                  mean = ReduceMean <keepdims = 1> (x, last)  # mean
                  y = Sub (x, mean)
                  z = Gelu (y)
                  logits = LayerNormalization <axis = -1> (z, scale)
                }
                """).runs(LoweredFormTest::lower).doesNotChange().computesTheSame();
    }

    private static final String BRANCHES = """
                {
                  shape = Shape (input_ids)
                  length = Gather (shape, one)
                  c = GreaterOrEqual (length, bound)
                  x = Gather (table, input_ids)
                  logits = If <then_branch = {...}, else_branch = {...}> (c)
                    then_branch =
                    then () => (float[] out)
                      <float[] w = [2.0]>
                    {
                      t = Mul (x, w)
                      out = Neg (t)
                    }
                    else_branch =
                    else () => (float[] same)
                    {
                      same = Identity (x)
                    }
                }
                """;

    private static String withBound(int bound) {
        return """
                ir_version 10
                opset "" 21
                main (int64[batch,length] input_ids) => (float[batch,length,4] logits)
                  <float[8,4] table = random(1)>
                  <int64[] one = [1]>
                  <int64[] bound = [%d]>
                """.formatted(bound) + BRANCHES;
    }

    /** Rows of three tokens take the first branch if it is for at least three, and the second if it is for four. */
    @Test
    void branches() {
        on(withBound(LENGTH)).runs(LoweredFormTest::select).yields("""
                ir_version 10
                opset "" 21
                main (int64[batch,length] input_ids) => (float[batch,length,4] logits)
                  <float[8,4] table = random(1)>
                  <int64[] one = [1]>
                  <int64[] bound = [3]>
                  <float[] w = [2.0]>
                {
                  shape = Shape (input_ids)
                  length = Gather (shape, one)
                  c = GreaterOrEqual (length, bound)
                  x = Gather (table, input_ids)
                  t = Mul (x, w)
                  logits = Neg (t)
                }
                """).computesTheSame();
        on(withBound(LENGTH + 1)).runs(LoweredFormTest::select).yields("""
                ir_version 10
                opset "" 21
                main (int64[batch,length] input_ids) => (float[batch,length,4] logits)
                  <float[8,4] table = random(1)>
                  <int64[] one = [1]>
                  <int64[] bound = [4]>
                {
                  shape = Shape (input_ids)
                  length = Gather (shape, one)
                  c = GreaterOrEqual (length, bound)
                  x = Gather (table, input_ids)
                  logits = Identity (x)
                }
                """).computesTheSame();
    }

    @Test
    void aModelWithoutBranches() {
        on("""
                ir_version 10
                opset "" 21
                main (int64[batch,length] input_ids) => (float[batch,length,4] logits)
                  <float[8,4] table = random(1)>
                {
                  float[batch,length,4] x = Gather (table, input_ids)
                  logits = Neg (x)
                }
                """).runs(LoweredFormTest::select).doesNotChange();
    }
}
