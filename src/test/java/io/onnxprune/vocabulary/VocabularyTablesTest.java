// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.GraphParser;
import io.onnxprune.ir.Model;
import io.onnxprune.measure.AnalysedModel;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.verify.ColumnVerifier;
import java.nio.file.Path;
import java.util.BitSet;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.Arguments;
import org.junit.jupiter.params.provider.MethodSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Models whose tables lose tokens, and models in which a token is more than a row of a table. */
@Tag("ort")
class VocabularyTablesTest {
    private static final int[] KEPT = {0, 2, 3, 7, 11};

    @TempDir
    private Path folder;

    /** A model with a table of 12 tokens, a residual block, and a head. */
    private static Model model(String declarations, String embedding, String head) {
        return GraphParser.parse("""
                ir_version 8
                opset "" 17
                opset "com.microsoft" 1
                main (int64[batch,sequence] input_ids) => (float[batch,sequence,12] logits)
                  <float[12,8] table = random(1)>
                  <float[12] bias = random(2)>
                  <float[8,16] up = random(3)>
                  <float[16,8] down = random(4)>
                  <float[8,12] head = random(5)>
                  <int64[] zero = [0]>
                  %s
                {
                  %s
                  u = MatMul (e, up)
                  r = Relu (u)
                  d = MatMul (r, down)
                  y = Add (e, d)
                  %s
                }
                """.formatted(declarations, embedding, head));
    }

    private static final String LOOK_UP = "e = Gather (table, input_ids)";
    private static final String HEAD = "p = MatMul (y, head)\n logits = Add (p, bias)";
    private static final String TIED = "t = Transpose <perm = [1, 0]> (table)\n p = MatMul (y, t)\n logits = Tanh (p)";

    private static VocabularyTables tables(Model model) {
        return VocabularyTables.of(
                AnalysedModel.of(model, TestModels.runtime(), Log.NONE).structure());
    }

    private static KeptTokens kept(int size) {
        BitSet stay = new BitSet();
        for (int id : KEPT) {
            stay.set(id);
        }
        return KeptTokens.of(size, stay);
    }

    /** Cuts the tables and compares the columns. */
    private ColumnVerifier.Comparison compare(Model model, KeptTokens given) {
        VocabularyTables tables = tables(model);
        tables.require();
        Path file = folder.resolve("model.onnx");
        ModelWriter.write(tables.reduced(kept(tables.size())), file, false);
        return new ColumnVerifier(given.ids(), TestModels.runtime(), 1).compare(model, file);
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                LOOK_UP,
                "i = Cast <to = 6> (input_ids)\n e = Gather (table, i)",
                "h = Cast <to = 10> (table)\n g = Gather (h, input_ids)\n e = Cast <to = 1> (g)",
                "a = Gather (table, input_ids)\n b = Gather (second, input_ids)\n e = Add (a, b)",
                "f = Gather (transposed, input_ids) \n e = Identity (f)"
            })
    void rowsAndColumnsOfKeptTokensAreTheOriginals(String embedding) {
        String more = "<float[12,8] second = random(6)> <float[12,8] transposed = random(7)>";
        for (String head : new String[] {HEAD, TIED}) {
            ColumnVerifier.Comparison found = compare(model(more, embedding, head), kept(12));
            assertThat(found.relative()).isLessThan(1e-5);
            assertThat(found.scale()).isPositive();
        }
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "bloom-d",
                "gpt2-g-merged",
                "llama-g16-e-int4",
                "mixtral-a",
                "opt-f-a-bert",
                "static-cache",
                "stories260k-g-int8dyn",
                // Its quantised table is also the weight of the head, and has another shape there.
                "stories260k-hd16-e-int4"
            })
    void exportsOfAllKinds(String name) {
        Model model = ModelReader.read(TestModels.file(name));
        assertThat(compare(model, kept(tables(model).size())).relative()).isLessThan(1e-4);
    }

    @Test
    void wrongColumnsAreFound() {
        BitSet others = new BitSet();
        others.set(1, 1 + KEPT.length);
        assertThat(compare(model("", LOOK_UP, HEAD), KeptTokens.of(12, others)).relative())
                .isGreaterThan(0.01);
    }

    @Test
    void sizesAreCounted() {
        VocabularyTables tables = tables(model("", LOOK_UP, HEAD));
        assertThat(tables.size()).isEqualTo(12);
        // Rows of the table, columns of the head, and elements of the bias.
        assertThat(tables.sizeWith(kept(12)).parameters()).isEqualTo(8 * 5 + 16 * 8 * 2 + 8 * 5 + 5);
    }

    static Stream<Arguments> otherUsesOfIds() {
        return Stream.of(
                Arguments.of("""
                        m = Equal (input_ids, zero)
                        f = Cast <to = 1> (m)
                        c = Unsqueeze (f, last)
                        g = Gather (table, input_ids)
                        e = Mul (g, c)""", "token ids are used other than to look up rows, at node \"m\" (Equal)"),
                Arguments.of(
                        "o = OneHot (input_ids, depth, values)\n e = MatMul (o, table)",
                        "token ids are used other than to look up rows, at node \"o\" (OneHot)"),
                Arguments.of(
                        "n = Add (input_ids, zero)\n e = Gather (table, n)",
                        "token ids are used other than to look up rows, at node \"n\" (Add)"),
                Arguments.of("""
                        g = Gather (table, input_ids)
                        k = Gather (table, some)
                        m = ReduceMean <keepdims = 0, axes = [0]> (k)
                        e = Add (g, m)""", "the table of tokens is also looked up by other numbers, at node \"k\" (Gather)"),
                Arguments.of("""
                        q, s, z = DynamicQuantizeLinear (table)
                        w = DequantizeLinear (q, s, z)
                        e = Gather (w, input_ids)""", "a mean or range over all tokens, at node \"q\" (DynamicQuantizeLinear)"));
    }

    @ParameterizedTest
    @MethodSource("otherUsesOfIds")
    void idsThatAreMoreThanRows(String embedding, String reason) {
        String more =
                "<int64[1] last = [-1]> <int64[] depth = [12]> <float[2] values = [0, 1]> <int64[2] some = [1, 2]>";
        assertRefused(model(more, embedding, HEAD), reason);
    }

    static Stream<Arguments> otherLogits() {
        return Stream.of(
                Arguments.of("logits = Softmax (p)", "normalised by a softmax at node \"logits\" (Softmax)"),
                Arguments.of(
                        "m = ReduceMax <axes = [-1], keepdims = 1> (p)\n logits = Sub (p, m)", "\"m\" (ReduceMax)"),
                Arguments.of(
                        "m = ReduceMean <axes = [-1], keepdims = 1> (p)\n logits = Sub (p, m)",
                        "a mean or range over all tokens, at node \"m\" (ReduceMean)"),
                Arguments.of("a, b = Split <axis = -1> (p)\n logits = Concat <axis = -1> (b, a)", "logits"),
                Arguments.of("logits = CumSum (p, two)", "summed step by step at node \"logits\" (CumSum)"));
    }

    @ParameterizedTest
    @MethodSource("otherLogits")
    void logitsThatMixTokens(String head, String reason) {
        assertRefused(model("<int64[] two = [2]>", LOOK_UP, "p = MatMul (y, head)\n" + head), reason);
    }

    @Test
    void inputsOverTheTokensAreNotCut() {
        Model model = GraphParser.parse("""
                ir_version 8
                opset "" 17
                main (int64[batch,sequence] input_ids, float[batch,sequence,12] bias) => (float[batch,sequence,12] logits)
                  <float[12,8] table = random(1)>
                  <float[8,12] head = random(5)>
                {
                  e = Gather (table, input_ids)
                  p = MatMul (e, head)
                  logits = Add (p, bias)
                }
                """);
        assertRefused(model, "an axis of graph input \"bias\"");
    }

    private static void assertRefused(Model model, String reason) {
        VocabularyTables tables = tables(model);
        assertThatThrownBy(tables::require)
                .isInstanceOf(UserException.class)
                .hasMessageContaining("the vocabulary cannot be pruned")
                .hasMessageContaining(reason);
    }
}
