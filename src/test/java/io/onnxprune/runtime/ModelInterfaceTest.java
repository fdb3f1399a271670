// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Graphs;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** The roles of inputs and outputs, and what is fed to them. */
class ModelInterfaceTest {
    private static final int VOCABULARY = 50;
    private static final int WIDTH = 6;
    private static final long[][] ROWS = {{1, 2, 3}, {4, 5, 6}};

    private static final ValueInfo TOKENS = Graphs.value("input_ids", DType.INT64, "batch", "sequence");
    private static final ValueInfo LOGITS = Graphs.floats("logits", "batch", "sequence", VOCABULARY);

    /** A graph that looks tokens up in a table; nothing else of it matters here. */
    private static ModelInterface of(List<ValueInfo> inputs, List<ValueInfo> outputs) {
        Tensor table = Tensor.ofFloats(DType.FLOAT, new long[] {VOCABULARY, WIDTH}, new float[VOCABULARY * WIDTH]);
        Graph graph = Graphs.graph(
                inputs, outputs, Map.of("table", table), Graphs.node("Gather", "embedded", "table", "input_ids"));
        return ModelInterface.of(graph);
    }

    private static float[] fed(ModelInterface model, String input, int past) {
        return model.feeds(ROWS, past).get(input).toFloats();
    }

    private static long[] shape(ModelInterface model, String input) {
        return model.wholeRows(ROWS).get(input).shape();
    }

    @Test
    void anOutputIsLogitsOnlyOverTheVocabulary() {
        ModelInterface encoder = of(List.of(TOKENS), List.of(Graphs.floats("last_hidden_state", "b", "s", WIDTH)));
        ModelInterface classifier = of(List.of(TOKENS), List.of(Graphs.floats("logits", "b", "s", 9)));
        ModelInterface padded = of(List.of(TOKENS), List.of(Graphs.floats("logits", "b", "s", VOCABULARY - 4)));
        ModelInterface unnamed = of(List.of(TOKENS), List.of(Graphs.floats("out", "b", "s", VOCABULARY)));

        assertThat(encoder.logits()).isEmpty();
        assertThat(encoder.end().name()).isEqualTo("last_hidden_state");
        assertThat(classifier.logits()).isEmpty();
        assertThat(padded.logits()).isPresent();
        assertThat(unnamed.requireLogits().name()).isEqualTo("out");
        assertThatThrownBy(encoder::requireLogits)
                .isInstanceOf(UserException.class)
                .hasMessageContaining("no output over a vocabulary")
                .hasMessageContaining("last_hidden_state[-1, -1, 6]");
    }

    @Test
    void tokensAreLookedUpThroughOperatorsThatKeepThem() {
        Tensor table = Tensor.ofFloats(DType.FLOAT, new long[] {VOCABULARY, WIDTH}, new float[VOCABULARY * WIDTH]);
        Graph graph = Graphs.graph(
                List.of(TOKENS),
                List.of(Graphs.floats("hidden", "b", "s", WIDTH)),
                Map.of("table", table),
                Node.of("", "Cast", List.of("input_ids"), List.of("ids"), Map.of()),
                Graphs.node("Identity", "copied", "table"),
                Graphs.node("Gather", "embedded", "copied", "ids"));

        assertThat(ModelInterface.of(graph).vocabulary()).hasValue(VOCABULARY);
        assertThat(ModelInterface.of(graph).logits()).isEmpty();
    }

    @Test
    void statesThatGrowThatStayAndThatAreOfAnEncoder() {
        ModelInterface model = of(
                List.of(
                        TOKENS,
                        Graphs.floats("encoder_hidden_states", "batch", "frames", WIDTH),
                        Graphs.floats("past.0.decoder.key", "batch", 2, "past", 4),
                        Graphs.floats("past.0.encoder.key", "batch", 2, "frames", 4),
                        Graphs.floats("past_conv.0", "batch", WIDTH, 2)),
                List.of(
                        LOGITS,
                        Graphs.floats("present.0.decoder.key", "batch", 2, "total", 4),
                        Graphs.floats("present.0.encoder.key", "batch", 2, "frames", 4),
                        Graphs.floats("present_conv.0", "batch", WIDTH, 2)));

        assertThat(model.states())
                .extracting(state -> List.of(state.pastAxis(), state.contextAxis(), state.batchAxis()))
                .containsExactly(List.of(2, -1, 0), List.of(-1, 2, 0), List.of(-1, -1, 0));
        assertThat(shape(model, "past.0.decoder.key")).containsExactly(2, 2, 0, 4);
        long[] encoder = shape(model, "encoder_hidden_states");
        assertThat(shape(model, "past.0.encoder.key")[2]).isEqualTo(encoder[1]).isPositive();
        assertThat(shape(model, "past_conv.0")).containsExactly(2, WIDTH, 2);
        assertThat(model.unknownInputs()).extracting(Session.Io::name).containsExactly("encoder_hidden_states");
        assertThat(model.results()).extracting(Session.Io::name).containsExactly("logits");
    }

    /** Some exports give the past and the present one name; nothing else could grow. */
    @Test
    void cachesWhoseAxesHaveTheSameName() {
        ModelInterface model = of(
                List.of(TOKENS, Graphs.floats("past.key", "batch", 2, "cache", 4)),
                List.of(LOGITS, Graphs.floats("present.key", "batch", 2, "cache", 4)));

        assertThat(model.states().get(0).pastAxis()).isEqualTo(2);
    }

    @Test
    void statesWithoutCommonNamesArePairedByTheirExtents() {
        ModelInterface model = of(
                List.of(TOKENS, Graphs.floats("k", "batch", 2, "past", 4), Graphs.floats("v", "batch", 2, "past", 8)),
                List.of(
                        LOGITS,
                        Graphs.floats("new_v", "batch", 2, "t", 8),
                        Graphs.floats("new_k", "batch", 2, "t", 4)));

        assertThat(model.states()).extracting(State::output).containsExactly("new_k", "new_v");
    }

    @Test
    void masksOfAnyForm() {
        ModelInterface model = of(
                List.of(
                        TOKENS,
                        Graphs.value("attention_mask", DType.INT64, "batch", "total"),
                        Graphs.value("causal_mask", DType.FLOAT16, "batch", 1, "sequence", "total"),
                        Graphs.value("bool_mask", DType.BOOL, "batch", 1, "sequence", "total")),
                List.of(LOGITS));

        assertThat(shape(model, "attention_mask")).containsExactly(2, 3);
        float never = -10_000;
        assertThat(fed(model, "causal_mask", 1))
                .startsWith(0, 0, never, never, 0, 0, 0, never, 0, 0, 0, 0)
                .hasSize(2 * 3 * 4);
        assertThat(model.feeds(ROWS, 0).get("causal_mask").dtype()).isEqualTo(DType.FLOAT);
        assertThat(model.feeds(ROWS, 0).get("bool_mask").toLongs()).startsWith(1, 0, 0, 1, 1, 0, 1, 1, 1);
    }

    /** In a mask as long as the buffer, tokens come first; in one of buffer and step, the step comes last. */
    @Test
    void masksOfCachesOfFixedLength() {
        ValueInfo cache = Graphs.floats("past.key", 2, 2, 8, 4);
        ValueInfo present = Graphs.floats("present.key", 2, 2, 8, 4);
        ModelInterface buffer =
                of(List.of(TOKENS, Graphs.value("attention_mask", DType.INT64, 2, 8), cache), List.of(LOGITS, present));
        ModelInterface before = of(
                List.of(TOKENS, Graphs.value("attention_mask", DType.INT64, 2, 11), cache), List.of(LOGITS, present));

        assertThat(buffer.feeds(ROWS, 1).get("attention_mask").toLongs()).startsWith(1, 1, 1, 1, 0, 0, 0, 0);
        assertThat(before.feeds(ROWS, 1).get("attention_mask").toLongs()).startsWith(0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1);
        assertThat(shape(buffer, "past.key")).containsExactly(2, 2, 8, 4);
    }

    @Test
    void rowsOfEmbeddingsAndOfNothing() {
        ModelInterface embeddings = ModelInterface.of(Graphs.graph(
                List.of(Graphs.floats("inputs_embeds", "batch", "sequence", WIDTH)), List.of(LOGITS), Map.of()));
        ModelInterface sound = ModelInterface.of(Graphs.graph(
                List.of(Graphs.floats("input_values", "batch", "samples")),
                List.of(Graphs.floats("hidden", "batch", "frames", WIDTH)),
                Map.of()));

        assertThat(embeddings.takesTokens()).isFalse();
        assertThat(embeddings.logits()).isPresent();
        assertThat(shape(embeddings, "inputs_embeds")).containsExactly(2, 3, WIDTH);
        // A token has one embedding, wherever it stands.
        float[] first = fed(embeddings, "inputs_embeds", 0);
        float[] again =
                embeddings.feeds(new long[][] {{9, 1}}, 0).get("inputs_embeds").toFloats();
        assertThat(List.of(first[0], first[1])).isEqualTo(List.of(again[WIDTH], again[WIDTH + 1]));
        assertThat(sound.rows()).isEmpty();
        assertThat(shape(sound, "input_values")[0]).isEqualTo(2);
        assertThatThrownBy(sound::requireRows)
                .isInstanceOf(UserException.class)
                .hasMessageContaining("neither token ids nor embeddings")
                .hasMessageContaining("input_values");
    }

    @Test
    void fixedExtentsDetermineTheRows() {
        ModelInterface model = of(
                List.of(
                        Graphs.value("input_ids", DType.INT32, 1, 32),
                        Graphs.value("position_ids", DType.INT32, 1, 32)),
                List.of(Graphs.floats("logits", 1, 32, VOCABULARY)));

        assertThat(model.fixedBatch()).hasValue(1);
        assertThat(model.fixedLength()).hasValue(32);
        assertThat(model.variableAxes().get("input_ids")).containsExactly(0, 1);
    }

    /** Of two inputs of token ids, the rows are those of which there are logits. */
    @Test
    void theDecoderOfTwoInputsOfTokens() {
        ModelInterface model = of(
                List.of(
                        Graphs.value("input_ids", DType.INT64, "batch", "source"),
                        Graphs.value("decoder_input_ids", DType.INT64, "batch", "target")),
                List.of(Graphs.floats("logits", "batch", "target", VOCABULARY)));

        assertThat(model.requireRows().name()).isEqualTo("decoder_input_ids");
        assertThat(model.unknownInputs()).extracting(Session.Io::name).containsExactly("input_ids");
    }
}
