// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.PassTester;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import java.util.function.UnaryOperator;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

@Tag("ort")
class DeadCodeTest {
    /** What an edit leaves: every reader of the first name reads the second. */
    private static UnaryOperator<Model> rewired(String from, String to) {
        return model -> {
            Graph before = model.graph();
            Graph after = before.withNodes(before.nodes().stream()
                    .map(node -> node.withInputs(node.inputs().stream()
                            .map(name -> name.equals(from) ? to : name)
                            .toList()))
                    .toList());
            return model.withGraph(DeadCode.remove(before, after));
        };
    }

    /** A chain that nothing needs goes, with the weight, the input and the declaration that only it read. */
    @Test
    void whatTheEditLeftWithoutAReaderGoes() {
        PassTester.on("""
                ir_version 9
                opset "" 18
                main (float[n,3] x, float[n,3] gate) => (float[n,3] y)
                  <float[3] w = [1.0, 2.0, 3.0]>
                  <float[] one = [1.0]>
                {
                  float[n,3] gated = Mul (gate, w)
                  branch = Tanh (gated)  # last
                  y = Mul (branch, one)
                  side = Neg (x)
                }
                """).runs(rewired("branch", "x")).yields("""
                ir_version 9
                opset "" 18
                main (float[n,3] x) => (float[n,3] y)
                  <float[] one = [1.0]>
                {
                  y = Mul (x, one)
                  side = Neg (x)
                }
                """);
    }

    /** Two copies of one value: the second loses its reader, and no result differs. */
    @Test
    void removingACopyChangesNoResult() {
        PassTester.on("""
                ir_version 9
                opset "" 18
                main (float[n,3] x) => (float[n,3] y)
                  <float[3] w = [1.0, 2.0, 3.0]>
                  <float[3] same = [1.0, 2.0, 3.0]>
                {
                  first = Mul (x, w)
                  second = Mul (x, same)
                  y = Add (first, second)
                }
                """).runs(rewired("second", "first")).yields("""
                ir_version 9
                opset "" 18
                main (float[n,3] x) => (float[n,3] y)
                  <float[3] w = [1.0, 2.0, 3.0]>
                {
                  first = Mul (x, w)
                  y = Add (first, first)
                }
                """).computesTheSame();
    }

    /** The second result of Split is still read, and so is the weight that only the body of the If reads. */
    @Test
    void whatIsReadInAnyWayStays() {
        PassTester.on("""
                ir_version 9
                opset "" 18
                main (float[n,4] x, bool[] c) => (float[n,2] y)
                  <float[2] w = [1.0, 2.0]>
                {
                  left, right = Split <axis = 1, num_outputs = 2> (x)
                  copy = Identity (left)
                  doubled = Add (right, copy)
                  chosen = If <then_branch = {...}, else_branch = {...}> (c)
                    then_branch =
                    then () => (float[n,2] a)
                    {
                      a = Mul (right, w)
                    }
                    else_branch =
                    else () => (float[n,2] b)
                    {
                      b = Identity (right)
                    }
                  y = Add (doubled, chosen)
                }
                """).runs(rewired("copy", "right")).yields("""
                ir_version 9
                opset "" 18
                main (float[n,4] x, bool[] c) => (float[n,2] y)
                  <float[2] w = [1.0, 2.0]>
                {
                  left, right = Split <axis = 1, num_outputs = 2> (x)
                  doubled = Add (right, right)
                  chosen = If <then_branch = {...}, else_branch = {...}> (c)
                    then_branch =
                    then () => (float[n,2] a)
                    {
                      a = Mul (right, w)
                    }
                    else_branch =
                    else () => (float[n,2] b)
                    {
                      b = Identity (right)
                    }
                  y = Add (doubled, chosen)
                }
                """);
    }

    /** The exporter left a node, a weight, an input and a declaration that nothing reads; none of them is the edit's. */
    @Test
    void whatWasDeadBeforeStays() {
        PassTester.on("""
                ir_version 9
                opset "" 18
                main (float[n,3] x, float[n,3] unread) => (float[n,3] y)
                  <float[3] spare = [1.0, 2.0, 3.0]>
                {
                  dead = Neg (x)
                  deader = Abs (dead)
                  y = Tanh (x)
                }
                """).runs(rewired("nothing", "x")).doesNotChange().computesTheSame();
    }

    /** An output of the graph is needed although no node reads it. */
    @Test
    void anOutputStays() {
        PassTester.on("""
                ir_version 9
                opset "" 18
                main (float[n,3] x) => (float[n,3] y, float[n,3] z)
                {
                  y = Tanh (x)
                  z = Neg (x)
                }
                """).runs(rewired("y", "x")).doesNotChange().computesTheSame();
    }
}
