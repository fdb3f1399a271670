// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import static io.onnxprune.ir.Graphs.floats;
import static io.onnxprune.ir.Graphs.graph;
import static io.onnxprune.ir.Graphs.longs;
import static io.onnxprune.ir.Graphs.model;
import static io.onnxprune.ir.Graphs.node;
import static org.assertj.core.api.Assertions.assertThatCode;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.onnx.ModelReader;
import java.nio.ByteBuffer;
import java.util.List;
import java.util.Map;
import org.assertj.core.api.AbstractThrowableAssert;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class GraphCheckerTest {
    private static final List<ValueInfo> X = List.of(floats("x", 4));
    private static final List<ValueInfo> Y = List.of(floats("y", 4));

    static List<String> models() {
        return TestModels.allNames();
    }

    @ParameterizedTest
    @MethodSource("models")
    void realModelsAreWellFormed(String name) {
        Model model = ModelReader.read(TestModels.file(name));

        assertThatCode(() -> GraphChecker.check(model, "import")).doesNotThrowAnyException();
    }

    @Test
    void aValueThatNothingDefines() {
        assertDefect(graph(X, Y, Map.of(), node("Add", "y", "x", "z"))).hasMessageContaining("reads \"z\"");
    }

    @Test
    void aGraphOutputThatNothingDefines() {
        assertDefect(graph(X, Y, Map.of(), node("Abs", "z", "x"))).hasMessageContaining("\"y\"");
    }

    @Test
    void aValueThatIsDefinedTwice() {
        assertDefect(graph(X, Y, Map.of(), node("Abs", "y", "x"), node("Neg", "y", "x")))
                .hasMessageEndingWith("node \"y\" (Neg) defines \"y\" a second time");
        assertDefect(graph(X, X, Map.of(), node("Abs", "x", "x"))).hasMessageContaining("defines \"x\" a second time");
        assertDefect(graph(X, Y, Map.of("y", longs(1)), node("Abs", "y", "x")))
                .hasMessageContaining("defines \"y\" a second time");
    }

    @Test
    void aBranchThatRedefinesAnOuterValue() {
        Graph branch = graph(List.of(), List.of(floats("x", 4)), Map.of(), node("Neg", "x", "c"));
        Node choice = Node.of(
                "",
                "If",
                List.of("c"),
                List.of("y"),
                Map.of("then_branch", new Attribute.Body(branch), "else_branch", new Attribute.Body(branch)));

        assertDefect(graph(List.of(X.get(0), floats("c")), Y, Map.of(), choice))
                .hasMessageContaining("defines \"x\" a second time");
    }

    @Test
    void aConstantWithoutItsBytes() {
        Bytes[] bytes = {Bytes.of(ByteBuffer.allocate(16))};
        Bytes shrinking = new Bytes() {
            @Override
            public long size() {
                return bytes[0].size();
            }

            @Override
            public void read(long offset, ByteBuffer target) {
                bytes[0].read(offset, target);
            }
        };
        Tensor tensor = Tensor.of(DType.FLOAT, new long[] {4}, shrinking);
        bytes[0] = Bytes.of(ByteBuffer.allocate(8));

        assertDefect(graph(X, Y, Map.of("w", tensor), node("Add", "y", "x", "w")))
                .hasMessageContaining("initializer \"w\" does not hold the bytes of float[4]");
    }

    private static AbstractThrowableAssert<?, ? extends Throwable> assertDefect(Graph graph) {
        return assertThatThrownBy(() -> GraphChecker.check(model(graph), "slice"))
                .isInstanceOf(IllegalStateException.class)
                .hasMessageStartingWith("after pass slice: ");
    }
}
