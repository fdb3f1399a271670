// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.lower;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** An If is replaced by the branch that complete rows of the given length take. */
@Tag("ort")
class BranchSelectionTest {
    private static Graph branch(String result, Map<String, Tensor> initializers, Node... nodes) {
        ValueInfo output = new ValueInfo(result, DType.FLOAT, null, new byte[0]);
        return new Graph("branch", List.of(), List.of(output), List.of(), initializers, List.of(nodes), new byte[0]);
    }

    private static Tensor scalar(float value) {
        return Tensor.ofFloats(DType.FLOAT, new long[0], value);
    }

    private static Node node(String op, String output, String... inputs) {
        return Node.of("", op, List.of(inputs), List.of(output), Map.of());
    }

    private static Map<String, Attribute> branches(Graph taken, Graph other) {
        return Map.of("then_branch", new Attribute.Body(taken), "else_branch", new Attribute.Body(other));
    }

    /** A condition that is true for rows of at least {@code bound} tokens. */
    private static String longRows(FusedGraph g, long bound) {
        String shape = g.graph().add("Shape", g.tokens());
        return g.graph()
                .add(
                        "GreaterOrEqual",
                        g.graph().add("Gather", shape, g.graph().index(1)),
                        g.graph().index(bound));
    }

    /** Both branches use the names t and w. The first uses x, and one of them contains another If. */
    private static Graph outer(String x, String inner) {
        Graph deep = branch("t", Map.of("w", scalar(5)), node("Add", "t", x, "w"));
        Graph captured = branch("same", Map.of(), node("Identity", "same", x));
        Node nested = Node.of("nested", "If", List.of(inner), List.of("t"), branches(deep, captured));
        return branch("u", Map.of("w", scalar(2)), nested, node("Mul", "u", "t", "w"));
    }

    @ParameterizedTest
    @ValueSource(longs = {3, 7, 8, 20})
    void takesTheBranchOfTheLength(long bound) {
        FusedGraph g = new FusedGraph(1);
        String x = g.operand(6);
        String inner = longRows(g, bound + 1);
        Graph other = branch("t", Map.of("w", scalar(3)), node("Sub", "t", x, "w"));
        g.test("", "If", List.of(longRows(g, bound)), branches(outer(x, inner), other), 3);
        Model lowered = g.assertLowered(18, 0);
        assertThat(lowered.graph().nodes()).noneMatch(node -> node.is("If"));
        boolean then = bound <= FusedGraph.LENGTH;
        assertThat(lowered.graph().nodes().stream().anyMatch(node -> node.is("Sub")))
                .isEqualTo(!then);
        assertThat(lowered.graph().nodes().stream().anyMatch(node -> node.is("Add")))
                .isEqualTo(bound + 1 <= FusedGraph.LENGTH);
    }

    @Test
    void yieldsConstantsOfABranch() {
        FusedGraph g = new FusedGraph(1);
        Graph constant = branch("w", Map.of("w", scalar(2)));
        Graph other = branch("t", Map.of(), node("Neg", "t", g.operand(6)));
        g.test("", "If", List.of(longRows(g, 2)), branches(constant, other), 3);
        g.assertLowered(18, 0);
    }

    @Test
    void rejectsConditionsOnTokens() {
        FusedGraph g = new FusedGraph(1);
        String x = g.operand(6);
        String first = g.graph().add("ReduceMax", g.tokens());
        String condition = g.graph().add("Greater", first, g.graph().index(3));
        Graph same = branch("t", Map.of(), node("Identity", "t", x));
        Graph other = branch("t", Map.of(), node("Neg", "t", x));
        g.test("", "If", List.of(condition), branches(same, other), 3);
        assertThatThrownBy(() -> Lowering.lower(g.model(18), TestModels.runtime(), 7, Log.NONE))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("\"tested\" (If)")
                .hasMessageContaining("depends on the tokens");
    }
}
