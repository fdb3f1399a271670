// SPDX-License-Identifier: Apache-2.0
package io.onnxprune;

import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.UnaryOperator;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** Each check of the tester, with a transformation that it must refuse. */
@Tag("ort")
class PassTesterTest {
    private static final String NEGATED = """
            ir_version 9
            opset "" 18
            main (float[n,3] x) => (float y)
              <float[3] w = [1.0, 2.0, 3.0]>
              <float[20] large = ...>
            {
              a = Mul (x, w)
              b = Neg (a)
              y = Neg (b)
            }
            """;
    private static final String COPIED = NEGATED.replace("  b = Neg (a)\n", "").replace("Neg (b)", "Identity (a)");

    private static Model withNodes(Model model, List<Node> nodes) {
        return model.withGraph(model.graph().withNodes(nodes));
    }

    /** Replaces the last two nodes by one, which reads {@code a}. */
    private static UnaryOperator<Model> last(String op) {
        return model -> withNodes(
                model, List.of(model.graph().nodes().get(0), Node.of("", op, List.of("a"), List.of("y"), Map.of())));
    }

    private static UnaryOperator<Model> weight(String name, Tensor tensor) {
        return model -> {
            Map<String, Tensor> initializers = new LinkedHashMap<>(model.graph().initializers());
            initializers.put(name, tensor);
            return model.withGraph(model.graph().withInitializers(initializers));
        };
    }

    private static void assertRefused(ThrowingCallable test, String message) {
        assertThatThrownBy(test).isInstanceOf(AssertionError.class).hasMessageContaining(message);
    }

    @Test
    void aRightTransformationPasses() {
        PassTester.on(NEGATED).runs(last("Identity")).yields(COPIED).computesTheSame();
        PassTester.on(NEGATED).runs(model -> model).doesNotChange().computesTheSame();
    }

    @Test
    void anotherTextIsRefused() {
        assertRefused(() -> PassTester.on(NEGATED).runs(last("Abs")).yields(COPIED), "y = Abs (a)");
        assertRefused(() -> PassTester.on(NEGATED).runs(last("Abs")).doesNotChange(), "y = Abs (a)");
    }

    @Test
    void noChangeWhereOneIsExpectedIsRefused() {
        assertRefused(() -> PassTester.on(NEGATED).runs(model -> model).yields(NEGATED), "a result that differs");
    }

    @Test
    void otherNumbersAreRefused() {
        assertRefused(() -> PassTester.on(NEGATED).runs(last("Neg")).computesTheSame(), ", expected ");
        assertRefused(() -> PassTester.on(NEGATED).runs(last("Log")).computesTheSame(), "is NaN, expected ");
        assertRefused(() -> PassTester.on(NEGATED).runs(last("Transpose")).computesTheSame(), "FLOAT[2, 3]");
    }

    @Test
    void otherContentsThatTheTextDoesNotShowAreRefused() {
        UnaryOperator<Model> pass = weight("large", Tensor.ofFloats(DType.FLOAT, new long[] {20}, new float[20]));

        assertRefused(() -> PassTester.on(NEGATED).runs(pass).doesNotChange(), "contents of large");
    }

    @Test
    void aBrokenGraphIsRefused() {
        UnaryOperator<Model> pass = model -> withNodes(
                model, model.graph().nodes().subList(1, model.graph().nodes().size()));

        assertRefused(() -> PassTester.on(NEGATED).runs(pass), "reads \"a\"");
    }

    @Test
    void aSecondRunThatChangesMoreIsRefused() {
        UnaryOperator<Model> pass = model -> {
            List<Node> nodes = new ArrayList<>(model.graph().nodes());
            nodes.add(Node.of("", "Neg", List.of("x"), List.of("extra" + nodes.size()), Map.of()));
            return withNodes(model, nodes);
        };

        assertRefused(() -> PassTester.on(NEGATED).runs(pass), "the result of a second run");
    }

    @Test
    void otherOutputsAndNewInputsAreRefused() {
        UnaryOperator<Model> renamed = model -> {
            List<Node> nodes = new ArrayList<>(model.graph().nodes());
            nodes.set(2, nodes.get(2).withOutputs(List.of("z")));
            return withNodes(model, nodes)
                    .withGraph(model.graph()
                            .withNodes(nodes)
                            .withInterface(
                                    model.graph().inputs(),
                                    List.of(model.graph().outputs().get(0).withName("z"))));
        };
        UnaryOperator<Model> asking = model -> model.withGraph(model.graph()
                .withInterface(
                        List.of(
                                model.graph().inputs().get(0),
                                model.graph().inputs().get(0).withName("more")),
                        model.graph().outputs()));

        assertRefused(
                () -> PassTester.on(NEGATED)
                        .runs(model -> model.graph().outputs().get(0).name().equals("z") ? model : renamed.apply(model))
                        .computesTheSame(),
                "outputs");
        assertRefused(() -> PassTester.on(NEGATED).runs(asking).computesTheSame(), "inputs");
    }

    @Test
    void nothingButZerosShowsNothing() {
        String zeros = NEGATED.replace("[1.0, 2.0, 3.0]", "[0.0, 0.0, 0.0]");

        assertRefused(() -> PassTester.on(zeros).runs(last("Identity")).computesTheSame(), "outputs");
    }

    @Test
    void theOrderOfAttributesMeansNothing() {
        String text = NEGATED.replace("Neg (b)", "Clip <a = 1, b = 2> (b)");
        UnaryOperator<Model> swapped = model -> {
            List<Node> nodes = new ArrayList<>(model.graph().nodes());
            Node node = Node.of("", "Clip", List.of("b"), List.of("y"), Map.of());
            nodes.set(2, node.withAttribute("b", new Attribute.Int(2)).withAttribute("a", new Attribute.Int(1)));
            return withNodes(model, nodes);
        };

        PassTester.on(text).runs(swapped).doesNotChange();
    }
}
