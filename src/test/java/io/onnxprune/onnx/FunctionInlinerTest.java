// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.onnx;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.PassTester;
import io.onnxprune.eval.CausalLm;
import io.onnxprune.ir.GraphChecker;
import io.onnxprune.ir.GraphParser;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.nio.file.Path;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

@Tag("ort")
class FunctionInlinerTest {
    private static final Path WITH_FUNCTIONS = Path.of("testmodels", "llama-functions", "model.onnx");
    private static final Path WITHOUT = Path.of("testmodels", "llama-gqa-b", "model.onnx");

    private static final String ACTIVATION = """
            ir_version 9
            opset "" 18
            metadata "slope" "0.5"
            Leaky (float x) => (float y)
            {
              t = LeakyRelu <alpha = "@slope"> (x)  # relu
              y = Add (t, x)
            }
            """;

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

    private static PassTester withActivation(String text) {
        return PassTester.on(FunctionText.with(GraphParser.parse(text), "local", ACTIVATION));
    }

    /** Each call has values of its own; an attribute is that of the call, or the default of the function. */
    @Test
    void attributesAreThoseOfTheCall() {
        withActivation("""
                ir_version 9
                opset "" 18
                opset "local" 1
                main (float[n,3] x) => (float[n,3] y)
                {
                  a = local.Leaky <slope = 0.25> (x)  # first
                  y = local.Leaky (a)
                }
                """).runs(FunctionInliner::inline).yields("""
                ir_version 9
                opset "" 18
                opset "local" 1
                main (float[n,3] x) => (float[n,3] y)
                {
                  first/t = LeakyRelu <alpha = 0.25> (x)  # first/relu
                  a = Add (first/t, x)  # first/y
                  y/t = LeakyRelu <alpha = 0.5> (a)  # y/relu
                  y = Add (y/t, a)  # y/y
                }
                """).computesTheSame();
    }

    /** The name that the inner value would get is taken; an operand that the call leaves out is left out in the body. */
    @Test
    void namesDoNotClash() {
        Model model = GraphParser.parse("""
                ir_version 9
                opset "" 18
                opset "local" 1
                main (float[n,3] x, float[n,3] call/t) => (float[n,3] y, float[n,3] z)
                {
                  y = local.Clipped (x, "", call/t)  # call
                  z = Neg (call/t)
                }
                """);
        String clipped = """
                ir_version 9
                opset "" 18
                Clipped (float x, float low, float added) => (float y)
                {
                  high = Constant <value = float[] [0.5]> ()
                  t = Clip (x, low, high)
                  y = Add (t, added)
                }
                """;

        PassTester.on(FunctionText.with(model, "local", clipped))
                .runs(FunctionInliner::inline)
                .yields("""
                ir_version 9
                opset "" 18
                opset "local" 1
                main (float[n,3] x, float[n,3] call/t) => (float[n,3] y, float[n,3] z)
                {
                  call/high = Constant <value = float[] [0.5]> ()  # call/high
                  call/t_1 = Clip (x, "", call/high)  # call/t
                  y = Add (call/t_1, call/t)  # call/y
                  z = Neg (call/t)
                }
                """)
                .computesTheSame();
    }

    /** A function that calls another is replaced down to standard operators, and so is a call in a body of If. */
    @Test
    void callsInFunctionsAndInBranches() {
        Model model = FunctionText.with(GraphParser.parse("""
                ir_version 9
                opset "" 18
                opset "local" 1
                main (float[n,3] x, bool[] c) => (float[n,3] y)
                {
                  y = If <then_branch = {...}, else_branch = {...}> (c)
                    then_branch =
                    then () => (float[n,3] a)
                    {
                      a = local.Twice (x)
                    }
                    else_branch =
                    else () => (float[n,3] b)
                    {
                      b = Neg (x)
                    }
                }
                """), "local", ACTIVATION);
        String twice = """
                ir_version 9
                opset "" 18
                opset "local" 1
                Twice (float x) => (float y)
                {
                  once = local.Leaky <slope = 0.125> (x)
                  y = local.Leaky <slope = 2.0> (once)
                }
                """;

        PassTester.on(FunctionText.with(model, "local", twice))
                .runs(FunctionInliner::inline)
                .yields("""
                ir_version 9
                opset "" 18
                opset "local" 1
                main (float[n,3] x, bool[] c) => (float[n,3] y)
                {
                  y = If <then_branch = {...}, else_branch = {...}> (c)
                    then_branch =
                    then () => (float[n,3] a)
                    {
                      a/once/t = LeakyRelu <alpha = 0.125> (x)  # a/once/relu
                      a/once = Add (a/once/t, x)  # a/once/y
                      a/y/t = LeakyRelu <alpha = 2.0> (a/once)  # a/y/relu
                      a = Add (a/y/t, a/once)  # a/y/y
                    }
                    else_branch =
                    else () => (float[n,3] b)
                    {
                      b = Neg (x)
                    }
                }
                """)
                .computesTheSame();
    }

    /** Bodies inside a function read its values. Their own values get names of their own. */
    @Test
    void bodiesInFunctionsReadItsValues() {
        Model model = GraphParser.parse("""
                ir_version 9
                opset "" 18
                opset "local" 1
                main (float[n,3] v, bool[] c) => (float[n,3] y)
                {
                  w = local.Choose (v, c)
                  y = local.Choose (w, c)
                }
                """);
        String choose = """
                ir_version 9
                opset "" 18
                Choose (float x, bool c) => (float y)
                {
                  t = Neg (x)
                  y = If <then_branch = {...}, else_branch = {...}> (c)
                    then_branch =
                    then () => (float a)
                    {
                      a = Sub (x, t)
                    }
                    else_branch =
                    else () => (float a)
                    {
                      z = Mul (t, x)
                      a = Neg (z)
                    }
                }
                """;

        PassTester.on(FunctionText.with(model, "local", choose))
                .runs(FunctionInliner::inline)
                .yields("""
                ir_version 9
                opset "" 18
                opset "local" 1
                main (float[n,3] v, bool[] c) => (float[n,3] y)
                {
                  w/t = Neg (v)  # w/t
                  w = If <then_branch = {...}, else_branch = {...}> (c)  # w/y
                    then_branch =
                    then () => (float w/a)
                    {
                      w/a = Sub (v, w/t)  # w/a
                    }
                    else_branch =
                    else () => (float w/a_1)
                    {
                      w/z = Mul (w/t, v)  # w/z
                      w/a_1 = Neg (w/z)  # w/a
                    }
                  y/t = Neg (w)  # y/t
                  y = If <then_branch = {...}, else_branch = {...}> (c)  # y/y
                    then_branch =
                    then () => (float y/a)
                    {
                      y/a = Sub (w, y/t)  # y/a
                    }
                    else_branch =
                    else () => (float y/a_2)
                    {
                      y/z = Mul (y/t, w)  # y/z
                      y/a_2 = Neg (y/z)  # y/a
                    }
                }
                """)
                .computesTheSame();
    }

    /** An operator of the same name in another domain is no call, nor is one of a function for another operator set. */
    @Test
    void whatIsNoCallIsLeftAlone() {
        withActivation("""
                ir_version 9
                opset "" 18
                opset "local" 1
                main (float[n,3] x) => (float[n,3] y)
                {
                  y = Neg (x)
                }
                """).runs(FunctionInliner::inline).doesNotChange().computesTheSame();
        withActivation("""
                ir_version 9
                opset "" 17
                opset "local" 1
                main (float[n,3] x) => (float[n,3] y)
                {
                  y = local.Leaky (x)
                }
                """).runs(FunctionInliner::inline).doesNotChange();
        withActivation("""
                ir_version 9
                opset "" 18
                opset "other" 1
                main (float[n,3] x) => (float[n,3] y)
                {
                  y = other.Leaky (x)
                }
                """).runs(FunctionInliner::inline).doesNotChange();
    }

    private static boolean isCall(Node node) {
        return !node.domain().isEmpty() && !node.domain().equals("com.microsoft");
    }

    private static float[] logits(Model model) {
        byte[] serialized = ModelWriter.skeleton(model, tensor -> false);
        try (OnnxRuntime runtime = OnnxRuntime.open(RuntimeOptions.cpu());
                CausalLm decoder = CausalLm.of(runtime.open(serialized, Map.of(), false), model.graph())) {
            return decoder.logits(new long[][] {{1, 2, 3, 4, 5}}).toFloats();
        }
    }
}
