// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.catchThrowable;

import io.onnxprune.TestModels;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.MethodSource;

@Tag("ort")
class GraphParserTest {
    /** One of everything that the text form has. */
    private static final String EVERYTHING = """
            ir_version 10
            opset "" 21
            opset "com.microsoft" 1
            metadata "key" "a \\"value\\"\\n\\\\ \\u0001"
            "main graph" (float[batch,4,"past + 1",?,"?","7"] x, bool c, int64[] n, carried "CgFz" sequence) => (float y, undefined z)
              <float[2,2] w = [1.0, -0.5, 1.0E-7, NaN]>
              <float[64] large = ...>
              <string[2] words = carried "CAI=">
              <int4[3] nibbles = hex "2103">
              <uint64[1] "odd, name" = [18446744073709551615]>
              <float[] nothing = [0.0]>
              <int64[0] empty = []>
              <float[2] declared>
            {
              float[2] a, "", carried "CgFi" b = com.microsoft.Fused <axis = -1, epsilon = 1.0E-5, mode = "a b", axes = [0, -1], none = [], value = float16[2] [0.5, 65504.0], big = float[17] ..., floats = carried "CgFm"> (x, "", //
            w)  # "the node"
               = Sink ()
              y, z = If <then_branch = {...}, last = 1, else_branch = {...}> (c)
                then_branch =
                then () => (float a1)
                  <float[1] inner = [3.0]>
                {
                  a1 = "a.b::op" (inner)
                }
                else_branch =
                else () => (float a2)
                {
                  a2 = "my domain" "Op" (a)
                }
            }
            """.replace("//\n", "");

    static List<String> models() {
        return TestModels.allNames();
    }

    @ParameterizedTest
    @MethodSource("models")
    void everyModelReadsAsItWasPrinted(String name) {
        String text = GraphPrinter.print(ModelReader.read(TestModels.file(name)));
        Model parsed = GraphParser.parse(text);

        assertThat(GraphPrinter.print(parsed)).isEqualTo(text);
        GraphChecker.check(parsed, "parse");
    }

    @Test
    void everythingThatTheTextHasIsPrintedAgain() {
        assertThat(GraphPrinter.print(GraphParser.parse(EVERYTHING))).isEqualTo(EVERYTHING);
    }

    @Test
    void everyPartOfTheTextIsInTheModel() {
        Model model = GraphParser.parse(EVERYTHING);
        Graph graph = model.graph();

        assertThat(model.irVersion()).isEqualTo(10);
        assertThat(model.opsets()).isEqualTo(Map.of("", 21L, "com.microsoft", 1L));
        assertThat(model.metadata()).isEqualTo(Map.of("key", "a \"value\"\n\\ \u0001"));
        assertThat(graph.name()).isEqualTo("main graph");
        assertThat(graph.inputs().get(0).shape())
                .extracting(ValueInfo.Extent::size, ValueInfo.Extent::symbol)
                .hasToString(
                        "[(-1L, \"batch\"), (4L, \"\"), (-1L, \"past + 1\"), (-1L, \"\"), (-1L, \"?\"), (-1L, \"7\")]");
        assertThat(graph.inputs().get(1).shape()).isNull();
        assertThat(graph.inputs().get(2).shape()).isEmpty();
        assertThat(graph.inputs().get(3).serialized()).containsExactly(10, 1, 's');
        assertThat(graph.values()).extracting(ValueInfo::name).containsExactly("declared", "a", "b");
        assertThat(graph.initializers().get("words").opaque()).containsExactly(8, 2);
        assertThat(graph.initializers().get("nibbles").bytes().toArray()).containsExactly(0x21, 0x03);
        Node fused = graph.nodes().get(0);
        assertThat(fused.domain()).isEqualTo("com.microsoft");
        assertThat(fused.name()).isEqualTo("the node");
        assertThat(fused.inputs()).containsExactly("x", "", "w");
        assertThat(fused.outputs()).containsExactly("a", "", "b");
        assertThat(fused.intAttribute("axis", 0)).isEqualTo(-1);
        assertThat(fused.floatAttribute("epsilon", 0)).isEqualTo(1e-5f);
        assertThat(fused.textAttribute("mode", "")).isEqualTo("a b");
        assertThat(fused.intsAttribute("axes")).containsExactly(0L, -1L);
        assertThat(fused.attributes().get("floats")).isInstanceOf(Attribute.Opaque.class);
        assertThat(graph.nodes().get(1).outputs()).isEmpty();
        Node choice = graph.nodes().get(2);
        assertThat(choice.attributes().keySet()).containsExactly("then_branch", "last", "else_branch");
        assertThat(body(choice, "then_branch").nodes().get(0).op()).isEqualTo("a.b::op");
        assertThat(body(choice, "else_branch").nodes().get(0).domain()).isEqualTo("my domain");
    }

    private static Graph body(Node node, String key) {
        return ((Attribute.Body) node.attributes().get(key)).graph();
    }

    @Test
    void theModelRuns() {
        Model model = GraphParser.parse("""
                ir_version 9
                opset "" 18
                main (float[n,2] x, bool[] c) => (float[n,2] y, float[n,3] z)
                  <float[2,2] w = [1.0, 2.0, 3.0, 4.0]>
                  <float[2,3] v = random(1)>
                {
                  product = MatMul (x, w)   // the comment ends with the line
                  half = Constant <value = float[] [0.5]> ()
                  y = If <then_branch = {...}, else_branch = {...}> (c)  # choice
                    then_branch =
                    then () => (float[n,2] y1) { y1 = Mul (product, half) }
                    else_branch =
                    else () => (float[n,2] y2) { y2 = Neg (product) }
                  z = MatMul (y, v)
                }
                """);

        try (Session session = TestModels.runtime().open(model, false)) {
            HostTensor x = HostTensor.ofFloat32(new long[] {1, 2}, 1, 10);
            for (boolean side : List.of(true, false)) {
                Map<String, HostTensor> feeds = Map.of("x", x, "c", HostTensor.ofBool(new long[0], side));
                try (Outputs outputs = session.run(feeds, List.of("y", "z"))) {
                    float[] y = outputs.tensor("y").toFloats();
                    assertThat(y).containsExactly(side ? new float[] {15.5f, 21} : new float[] {-31, -42});
                    float[] v = model.graph().initializers().get("v").toFloats();
                    assertThat(outputs.tensor("z").toFloats()[2]).isEqualTo(y[0] * v[2] + y[1] * v[5]);
                }
            }
        }
    }

    @ParameterizedTest
    @EnumSource
    void valuesOfEveryTypeAreTheSameBits(DType dtype) {
        if (dtype.bits() == 0) {
            return;
        }
        Random random = new Random(dtype.code());
        byte[] bytes = new byte[(int) dtype.bytes(16)];
        for (int i = 0; i < 200; i++) {
            random.nextBytes(bytes);
            Tensor tensor = Tensor.of(dtype, new long[] {2, 8}, Bytes.of(ByteBuffer.wrap(bytes)));
            Model parsed = GraphParser.parse(GraphPrinter.print(holding(tensor)));
            Tensor again = parsed.graph().initializers().get("w");

            assertThat(again.dtype()).isEqualTo(dtype);
            assertThat(again.shape()).containsExactly(2, 8);
            if (dtype.isFloat()) {
                assertThat(again.toFloats()).isEqualTo(tensor.toFloats());
            } else {
                assertThat(again.bytes().toArray()).isEqualTo(bytes);
            }
        }
    }

    private static Model holding(Tensor tensor) {
        return Graphs.model(Graphs.graph(List.of(), List.of(), Map.of("w", tensor)));
    }

    @ParameterizedTest
    @EnumSource
    void contentsThatAreLeftOutAreTheSameEveryTime(DType dtype) {
        if (dtype.bits() == 0) {
            return;
        }
        String type = GraphPrinter.name(dtype) + "[3,70]";
        String text = "ir_version 9 main () => () <%s a = ...> <%s b = ...> <%s c = random(5)> <%s d = random(5)> {}"
                .replace("%s", type);
        Map<String, Tensor> first = GraphParser.parse(text).graph().initializers();
        Map<String, Tensor> second = GraphParser.parse(text).graph().initializers();

        first.forEach((name, tensor) -> assertThat(tensor.bytes().toArray())
                .isEqualTo(second.get(name).bytes().toArray()));
        assertThat(first.get("a").bytes().toArray())
                .isNotEqualTo(first.get("b").bytes().toArray());
        assertThat(first.get("c").bytes().toArray())
                .isEqualTo(first.get("d").bytes().toArray());
        ByteBuffer part = ByteBuffer.allocate(11);
        first.get("a").bytes().read(5, part);
        assertThat(part.flip()).isEqualTo(ByteBuffer.wrap(first.get("a").bytes().toArray(), 5, 11));
    }

    @Test
    void madeUpNumbersAreUniform() {
        String text = "ir_version 9 main () => () <float[1000] w = random(3)> <int64[1000] n = random(4)> {}";
        Map<String, Tensor> tensors = GraphParser.parse(text).graph().initializers();
        double sum = 0;
        double squares = 0;
        for (float value : tensors.get("w").toFloats()) {
            assertThat(value).isGreaterThanOrEqualTo(-0.5f).isLessThan(0.5f);
            sum += value;
            squares += value * value;
        }

        assertThat(Math.abs(sum / 1000)).isLessThan(0.03);
        assertThat(squares / 1000).isBetween(0.075, 0.092);
        assertThat(tensors.get("n").toLongs()).containsOnly(0, 1);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '\'', textBlock = """
            ‸                                             | "ir_version", found the end of the text
            ir_version ‸ten                               | a version, found "ten"
            ir_version 9 opset ‸ai.onnx 3                 | "(", found "ai.onnx"
            ir_version 9 opset "" 3⏎opset ‸"" 4           | another domain, found the string ""
            ir_version 9 metadata "a" ‸(                  | a value, in quotes, found "("
            ir_version 9 ‸(                               | the name of a graph, found "("
            ir_version 9 main (‸flot[2] x) => () {}       | an element type such as float or int64, found "flot"
            ir_version 9 main (‸FLOAT[2] x) => () {}      | an element type such as float or int64, found "FLOAT"
            ir_version 9 main (float[2] ‸) => () {}       | the name of a value, found ")"
            ir_version 9 main (float[2 ‸x) => () {}       | "," or "]", found "x"
            ir_version 9 main (float[2,‸,3] x) => () {}   | an extent: a number, a name or ?, found ","
            ir_version 9 main () ‸= () {}                 | "=>", found "="
            ir_version 9 main () => () {} ‸more           | the end of the text, found "more"
            ir_version 9 main () => ()⏎  ‸w               | "<" and a constant, or "{" and nodes, found "w"
            ir_version 9 ⏎"main‸                          | a closing quote, found the end of the line
            ir_version 9 ⏎"ma\\‸xin"                      | one of " \\ n r t u after a backslash, found "x"
            ir_version 9 "\\u12‸g4"                       | a hexadecimal digit, found "g"
            ir_version 9 "\\u1‸⏎"                         | four hexadecimal digits, found the end of the line
            """)
    void headersThatAreWrong(String text, String message) {
        assertFailure(text, message);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '\'', textBlock = """
            ‸float[n] w = [1]>                         | the type of a constant, with numbers as extents, found "float"
            ‸float w = [1]>                            | the type of a constant, with numbers as extents, found "float"
            ‸float[9999999999,9999999999] w = ...>     | the type of a constant, with numbers as extents, found "float"
            float[‸99999999999999999999] w = ...>      | an extent, found "99999999999999999999"
            float[2] w = ‸[1]>                         | 2 numbers, found 1
            float[1] w = [‸one]>                       | a number of type float, found "one"
            int8[1] w = [‸128]>                        | a number of type int8, found "128"
            uint16[1] w = [‸-1]>                       | a number of type uint16, found "-1"
            int4[3] w = ‸[1, 2, 3]>                    | "hex", for a tensor of int4, found "["
            int4[3] w = hex ‸"00">                     | 2 bytes in hexadecimal, in quotes, found the string "00"
            int4[2] w = hex ‸"0g">                     | 1 bytes in hexadecimal, in quotes, found the string "0g"
            string[3] w = ‸...>                        | "carried", for a tensor of string, found "..."
            string[3] w = carried ‸"*">                | bytes in base64, found the string "*"
            float[1] w = ‸zeros>                       | contents: a list of numbers, hex, random(seed) or ..., found "zeros"
            float[1] w = random(‸x)>                   | a seed, found "x"
            float[1] w = [1.0]> <‸float[1] w = [2.0]>  | a constant with another name, found "float"
            """)
    void constantsThatAreWrong(String constant, String message) {
        assertFailure("ir_version 9⏎main () => ()⏎  <" + constant + "⏎{}", message);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '\'', textBlock = """
            y = ‸}                                       | an operator, found "}"
            ‸y Add (x) }                                 | an element type such as float or int64, found "y"
            y = Add ‸x }                                 | "(" and operands, found "x"
            y = Add (x ‸y) }                             | "," or ")", found "y"
            y = Add (x)⏎‸                                | "}", or the name of a result, found the end of the text
            y = Add (x)  # a ‸# b }                      | "}", or the name of a result, found "#"
            y = Cast <to = ‸> (x) }                      | a number, a string, a list of integers, a tensor or {...}, found ">"
            y = Cast <to = ‸one> (x) }                   | a number, a string, a list of integers, a tensor or {...}, found "one"
            y = Cast <to = ‸12345678901234567890> (x) }  | a number, a string, a list of integers, a tensor or {...}, found "12345678901234567890"
            y = Cast <to ‸1> (x) }                       | "=", found "1"
            y = Cast <to = [‸1.5]> (x) }                 | an integer, found "1.5"
            y = Cast <to = 1, ‸to = 2> (x) }             | another attribute, found "to"
            y = If <then = {‸}> (c) }                    | "...", found "}"
            y = If <then = {...}> (c)⏎‸}                 | the graph of attribute then, found "}"
            """)
    void nodesThatAreWrong(String nodes, String message) {
        assertFailure("ir_version 9⏎main () => () {⏎" + nodes, message);
    }

    /** Text with ⏎ for the ends of lines, and ‸ before what is wrong. */
    private static void assertFailure(String marked, String message) {
        String text = marked.replace('⏎', '\n');
        String before = text.substring(0, text.indexOf('‸'));
        int line = (int) before.chars().filter(character -> character == '\n').count() + 1;
        int column = before.length() - before.lastIndexOf('\n');

        assertThatThrownBy(() -> GraphParser.parse(text.replace("‸", "")))
                .isInstanceOf(GraphSyntaxException.class)
                .hasMessage("line " + line + ", column " + column + ": expected " + message)
                .satisfies(failure -> {
                    assertThat(((GraphSyntaxException) failure).line()).isEqualTo(line);
                    assertThat(((GraphSyntaxException) failure).column()).isEqualTo(column);
                });
    }

    @Test
    void aDamagedTextIsASyntaxErrorOrAModel() {
        Random random = new Random(1);
        int refused = 0;
        for (int i = 0; i < 3000; i++) {
            StringBuilder text = new StringBuilder(EVERYTHING);
            int at = random.nextInt(text.length());
            switch (random.nextInt(3)) {
                case 0 -> text.setLength(at);
                case 1 -> text.deleteCharAt(at);
                default -> text.setCharAt(at, "()[]{}<>,=#\"x1 ".charAt(random.nextInt(15)));
            }
            Throwable failure = catchThrowable(() -> GraphParser.parse(text.toString()));
            if (failure != null) {
                assertThat(failure).as(text.toString()).isInstanceOf(GraphSyntaxException.class);
                refused++;
            }
        }

        assertThat(refused).isGreaterThan(1000);
    }
}
