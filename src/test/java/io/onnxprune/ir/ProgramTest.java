// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import static io.onnxprune.ir.Graphs.floats;
import static io.onnxprune.ir.Graphs.graph;
import static io.onnxprune.ir.Graphs.longs;
import static io.onnxprune.ir.Graphs.model;
import static io.onnxprune.ir.Graphs.node;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.diag.UserException;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

class ProgramTest {
    private static final List<ValueInfo> X = List.of(floats("x", 4));
    private static final List<ValueInfo> Y = List.of(floats("y", 4));

    @Test
    void valuesKnowTheirProducerAndUses() {
        Program program = Program.of(model(graph(
                X,
                Y,
                Map.of("w", longs(1)),
                node("Neg", "a", "x"),
                node("Add", "b", "a", "a"),
                node("Abs", "y", "b"))));
        Op add = program.ops().get(1);

        assertThat(program.inputs()).extracting(Value::name).containsExactly("x");
        assertThat(program.initializers()).containsOnlyKeys("w");
        assertThat(add.input(0))
                .isSameAs(add.input(1))
                .isSameAs(program.ops().get(0).output(0));
        assertThat(add.input(0).uses()).containsExactly(new Program.Use(add, 0), new Program.Use(add, 1));
        assertThat(program.outputs().get(0).producer()).isSameAs(program.ops().get(2));
        assertThat(program.outputs().get(0).info()).isEqualTo(Y.get(0));
    }

    @Test
    void omittedOperandsAreNull() {
        Program program = Program.of(model(graph(X, Y, Map.of(), node("Clip", "y", "x", "", "x"))));
        Op clip = program.ops().get(0);

        assertThat(clip.input(1)).isNull();
        assertThat(clip.input(2).name()).isEqualTo("x");
        assertThat(clip.input(3)).isNull();
        assertThat(clip.output(1)).isNull();
    }

    @Test
    void nodesThatAreOutOfOrderAreSorted() {
        Program program = Program.of(
                model(graph(X, Y, Map.of(), node("Abs", "y", "b"), node("Neg", "b", "a"), node("Exp", "a", "x"))));

        assertThat(program.ops()).extracting(op -> op.node().op()).containsExactly("Exp", "Neg", "Abs");
    }

    @Test
    @Timeout(value = 30, unit = TimeUnit.SECONDS)
    void manyNodesInReverseAreSorted() {
        int count = 60_000;
        List<Node> reversed = new ArrayList<>();
        for (int i = count; i > 0; i--) {
            reversed.add(node("Neg", i == count ? "y" : "v" + i, i == 1 ? "x" : "v" + (i - 1)));
        }
        Program program = Program.of(model(graph(X, Y, Map.of(), reversed.toArray(Node[]::new))));

        assertThat(program.ops()).hasSize(count);
        assertThat(program.ops().get(0).input(0).name()).isEqualTo("x");
    }

    @Test
    void anUndefinedNameIsReportedWithItsConsumer() {
        assertThatThrownBy(() -> Program.of(model(graph(X, Y, Map.of(), node("Abs", "y", "nowhere")))))
                .isInstanceOf(UserException.class)
                .hasMessage(
                        "the model is damaged: \"y\" (Abs) reads \"nowhere\", which no input, initializer or earlier"
                                + " node defines");
        assertThatThrownBy(() -> Program.of(model(graph(X, Y, Map.of(), node("Abs", "z", "x")))))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("graph output reads \"y\"");
    }

    @Test
    void aCycleIsReported() {
        assertThatThrownBy(() -> Program.of(
                        model(graph(X, Y, Map.of(), node("Add", "a", "x", "b"), node("Add", "b", "a", "x")))))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("reads \"b\"");
    }

    @Test
    void branchesSeeOuterValuesAndHideTheirOwn() {
        Graph then = graph(List.of(), List.of(floats("r", 4)), Map.of(), node("Neg", "t", "a"), node("Exp", "r", "t"));
        Graph otherwise = graph(List.of(), List.of(floats("r", 4)), Map.of("t", longs(3)), node("Add", "r", "a", "t"));
        Node choice = choice(then, otherwise);
        Program program =
                Program.of(model(graph(List.of(X.get(0), floats("c")), Y, Map.of(), node("Abs", "a", "x"), choice)));

        assertThat(program.ops()).extracting(op -> op.node().op()).containsExactly("Abs", "Neg", "Exp", "Add", "If");
        Op neg = program.ops().get(1);
        Op add = program.ops().get(3);
        assertThat(neg.input(0))
                .isSameAs(add.input(0))
                .isSameAs(program.ops().get(0).output(0));
        assertThat(add.input(1)).isNotSameAs(neg.output(0));
        assertThat(add.input(1).constant()).isNotNull();
        assertThat(neg.branch()).containsExactly(new Program.Branch(choice, true));
        assertThat(add.branch()).containsExactly(new Program.Branch(choice, false));
        assertThat(program.branchOutputs(choice))
                .isEqualTo(List.of(List.of(program.ops().get(2).output(0)), List.of(add.output(0))));
    }

    @Test
    void branchesDoNotSeeEachOther() {
        Graph then = graph(List.of(), List.of(floats("t", 4)), Map.of(), node("Neg", "t", "x"));
        Graph otherwise = graph(List.of(), List.of(floats("r", 4)), Map.of(), node("Neg", "r", "t"));

        assertThatThrownBy(() ->
                        Program.of(model(graph(List.of(X.get(0), floats("c")), Y, Map.of(), choice(then, otherwise)))))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("reads \"t\"");
    }

    @Test
    void aNodeAfterAnIfDoesNotSeeIntoItsBranches() {
        Graph branch = graph(List.of(), List.of(floats("t", 4)), Map.of(), node("Neg", "t", "x"));

        assertThatThrownBy(() -> Program.of(model(graph(
                        List.of(X.get(0), floats("c")),
                        Y,
                        Map.of(),
                        Node.of("", "If", List.of("c"), List.of("r"), branches(branch, branch)),
                        node("Abs", "y", "t")))))
                .isInstanceOf(UserException.class)
                .hasMessageContaining("reads \"t\"");
    }

    @Test
    void branchesMayReadValuesOfLaterNodes() {
        Graph branch = graph(List.of(), List.of(floats("t", 4)), Map.of(), node("Neg", "t", "late"));
        Program program = Program.of(model(
                graph(List.of(X.get(0), floats("c")), Y, Map.of(), choice(branch, branch), node("Exp", "late", "x"))));

        assertThat(program.ops()).extracting(op -> op.node().op()).containsExactly("Exp", "Neg", "Neg", "If");
    }

    @Test
    void anIfNeedsBothBranches() {
        Graph branch = graph(List.of(), List.of(floats("t", 4)), Map.of(), node("Neg", "t", "x"));
        Node half =
                Node.of("choice", "If", List.of("x"), List.of("y"), Map.of("then_branch", new Attribute.Body(branch)));

        assertThatThrownBy(() -> Program.of(model(graph(X, Y, Map.of(), half))))
                .isInstanceOf(UserException.class)
                .hasMessage("node \"choice\" (If) has no else_branch; the model is damaged");
    }

    @Test
    void capturedValuesAreOperandsOfALoop() {
        Graph body = graph(
                List.of(floats("i"), floats("go"), floats("state", 4)),
                List.of(floats("go"), floats("next", 4)),
                Map.of(),
                node("Add", "sum", "state", "outer"),
                node("Neg", "next", "sum"));
        Node loop = Node.of("", "Loop", List.of("", "", "x"), List.of("y"), Map.of("body", new Attribute.Body(body)));
        Program program = Program.of(model(graph(X, Y, Map.of(), node("Exp", "outer", "x"), loop)));

        assertThat(program.ops()).hasSize(2);
        assertThat(program.ops().get(1).inputs())
                .containsExactly(
                        null,
                        null,
                        program.inputs().get(0),
                        program.ops().get(0).output(0));
    }

    @Test
    void constantNodesAreConstants() {
        Program program = Program.of(model(graph(
                X,
                Y,
                Map.of(),
                Node.of(
                        "",
                        "Constant",
                        List.of(),
                        List.of("n"),
                        Map.of("value_ints", new Attribute.Ints(List.of(2L, 3L)))),
                Node.of("", "Constant", List.of(), List.of("f"), Map.of("value_float", new Attribute.Real(0.5f))),
                Node.of("", "Constant", List.of(), List.of("t"), Map.of("value", new Attribute.Constant(longs(9)))),
                node("Abs", "y", "x"))));

        assertThat(program.ops().get(0).output(0).constant().toLongs()).containsExactly(2, 3);
        assertThat(program.ops().get(1).output(0).constant().toFloats()).containsExactly(0.5f);
        assertThat(program.ops().get(2).output(0).constant().toLongs()).containsExactly(9);
        assertThat(program.ops().get(3).output(0).constant()).isNull();
    }

    @Test
    void initializersListedAsInputsAreNotInputs() {
        Program program = Program.of(
                model(graph(List.of(X.get(0), floats("w", 1)), Y, Map.of("w", longs(1)), node("Add", "y", "x", "w"))));

        assertThat(program.inputs()).extracting(Value::name).containsExactly("x");
        assertThat(program.ops().get(0).input(1).constant()).isNotNull();
    }

    @Test
    void copiesLeadBackToTheirOrigin() {
        Program program = Program.of(model(graph(
                X,
                Y,
                Map.of(),
                node("Neg", "a", "x"),
                node("Identity", "b", "a"),
                node("Cast", "c", "b"),
                node("Abs", "y", "c"))));

        assertThat(program.ops().get(3).input(0).origin())
                .isSameAs(program.ops().get(0).output(0));
    }

    private static Node choice(Graph then, Graph otherwise) {
        return Node.of("", "If", List.of("c"), List.of("y"), branches(then, otherwise));
    }

    private static Map<String, Attribute> branches(Graph then, Graph otherwise) {
        return Map.of("then_branch", new Attribute.Body(then), "else_branch", new Attribute.Body(otherwise));
    }
}
