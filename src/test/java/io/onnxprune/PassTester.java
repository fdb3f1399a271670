// SPDX-License-Identifier: Apache-2.0
package io.onnxprune;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.fail;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.GraphChecker;
import io.onnxprune.ir.GraphParser;
import io.onnxprune.ir.GraphPrinter;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;
import java.util.function.UnaryOperator;

/**
 * Runs a transformation of a model on a text, and compares what comes out with another text and with what went in:
 *
 * <pre>
 * PassTester.on(text).runs(model -> ...).yields(otherText).computesTheSame();
 * PassTester.on(text).runs(model -> ...).doesNotChange();
 * </pre>
 *
 * <p>Whatever a test asks for, the result must also be well formed, read back as it was printed, and stay as it is when the
 * transformation runs on it again. The model that went in must be as it was.
 */
public final class PassTester {
    private final Model original;
    private final int bound;

    private PassTester(Model original, int bound) {
        this.original = original;
        this.bound = bound;
    }

    /**
     * A tester of what happens to a model.
     *
     * @param text in the form of {@link GraphParser}
     */
    public static PassTester on(String text) {
        return on(GraphParser.parse(text));
    }

    /** The same for a model that has what no text can say. */
    public static PassTester on(Model original) {
        GraphChecker.check(original, "none, the model under test");
        return new PassTester(original, 2);
    }

    /** Feeds integer inputs with 0 to {@code bound - 1} instead of 0 and 1. */
    public PassTester integersBelow(int bound) {
        return new PassTester(original, bound);
    }

    /**
     * Runs the transformation.
     *
     * @throws AssertionError if the result is not well formed, does not read back, or changes in a second run, or if
     *     the model that went in was changed
     */
    public Result runs(UnaryOperator<Model> pass) {
        String before = text(original);
        Model result = pass.apply(original);
        String after = text(result);
        try {
            GraphChecker.check(result, "under test");
        } catch (IllegalStateException e) {
            fail(e.getMessage() + " in\n" + after, e);
        }
        assertThat(text(original)).as("the model that went in").isEqualTo(before);
        assertThat(text(GraphParser.parse(after))).as("the result, read back").isEqualTo(after);
        assertThat(text(pass.apply(result))).as("the result of a second run").isEqualTo(after);
        return new Result(original, result, bound);
    }

    /** The text of a model with the attributes of each node in alphabetical order, which means nothing. */
    private static String text(Model model) {
        return GraphPrinter.print(model.withGraph(sorted(model.graph())));
    }

    private static Graph sorted(Graph graph) {
        return graph.withNodes(graph.nodes().stream().map(PassTester::sorted).toList());
    }

    private static Node sorted(Node node) {
        Map<String, Attribute> attributes = new TreeMap<>(node.attributes());
        attributes.replaceAll((key, value) ->
                value instanceof Attribute.Body body ? new Attribute.Body(sorted(body.graph())) : value);
        return new Node(node.name(), node.domain(), node.op(), node.inputs(), node.outputs(), attributes, node.rest());
    }

    /** What a transformation made of a model. */
    public static final class Result {
        private final Model original;
        private final Model result;
        private final int bound;

        private Result(Model original, Model result, int bound) {
            this.original = original;
            this.result = result;
            this.bound = bound;
        }

        /** The model that came out. */
        public Model model() {
            return result;
        }

        /** Requires that the model changed, and that it is now this one, with the contents of all constants. */
        public Result yields(String text) {
            Model expected = GraphParser.parse(text);
            assertThat(text(result)).isEqualTo(text(expected));
            assertSameContents(expected);
            assertThat(text(result)).as("a result that differs").isNotEqualTo(text(original));
            return this;
        }

        /** Requires that the model is as it was, with the contents of all constants. */
        public Result doesNotChange() {
            assertThat(text(result)).isEqualTo(text(original));
            assertSameContents(original);
            return this;
        }

        private void assertSameContents(Model expected) {
            Map<String, Tensor> constants = constants(result.graph(), "");
            constants(expected.graph(), "").forEach((place, tensor) -> {
                Tensor actual = constants.get(place);
                assertThat(actual.opaque()).as(place).isEqualTo(tensor.opaque());
                if (tensor.bytes() != null) {
                    assertThat(actual.bytes().toArray())
                            .as("contents of " + place)
                            .isEqualTo(tensor.bytes().toArray());
                }
            });
        }

        private static Map<String, Tensor> constants(Graph graph, String where) {
            Map<String, Tensor> constants = new LinkedHashMap<>();
            graph.initializers().forEach((name, tensor) -> constants.put(where + name, tensor));
            for (int i = 0; i < graph.nodes().size(); i++) {
                Node node = graph.nodes().get(i);
                String prefix = where + i + " " + node.label() + " ";
                node.attributes().forEach((key, attribute) -> {
                    if (attribute instanceof Attribute.Constant constant) {
                        constants.put(prefix + key, constant.tensor());
                    } else if (attribute instanceof Attribute.Body body) {
                        constants.putAll(constants(body.graph(), prefix + key + " "));
                    }
                });
            }
            return constants;
        }

        /**
         * Requires that both models have the same outputs, and that ONNX Runtime computes the same for them on the same
         * random inputs: up to 1e-5 + 1e-4 · |expected| for floating-point numbers. The result may have lost inputs.
         */
        public Result computesTheSame() {
            assertThat(names(result.graph().outputs()))
                    .as("outputs")
                    .isEqualTo(names(original.graph().outputs()));
            assertThat(names(original.graph().givenInputs()))
                    .as("inputs")
                    .containsAll(names(result.graph().givenInputs()));
            for (int seed = 0; seed < 3; seed++) {
                SeededRun expected = SeededRun.of(original, original.graph().givenInputs(), bound, seed);
                SeededRun actual = SeededRun.of(result, original.graph().givenInputs(), bound, seed);
                expected.requireContents();
                actual.assertCloseTo(expected);
            }
            return this;
        }

        private static List<String> names(List<ValueInfo> values) {
            return new ArrayList<>(values.stream().map(ValueInfo::name).toList());
        }
    }
}
