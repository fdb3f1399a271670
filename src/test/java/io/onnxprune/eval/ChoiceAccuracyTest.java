// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.eval.Questions.Choice;
import io.onnxprune.eval.Questions.Question;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Optional;
import java.util.SplittableRandom;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

@Tag("ort")
class ChoiceAccuracyTest {
    private static final OnnxRuntime RUNTIME = OnnxRuntime.open(RuntimeOptions.cpu());
    private static final Path MODELS = Path.of("testmodels");
    private static final Path TOKENIZER = Path.of("src/test/resources/tokenizers/byte-fallback/tokenizer.json");

    @TempDir
    private Path folder;

    private Path file(String... lines) throws IOException {
        return Files.writeString(folder.resolve("questions.jsonl"), String.join("\n", lines) + "\n");
    }

    private static ChoiceAccuracy measure(String model, Path questions) {
        return Evaluator.choices(
                RUNTIME, MODELS.resolve(model).resolve("model.onnx"), EvalOptions.of(questions), Log.NONE);
    }

    /** Questions of different numbers of options and lengths, of models with and without a cache. */
    @ParameterizedTest
    @ValueSource(strings = {"stories-llama", "opt-c"})
    void asOneOptionAtATime(String name) throws IOException {
        SplittableRandom random = new SplittableRandom(5);
        List<String> lines = new ArrayList<>();
        int[] right = new int[40];
        long[][][] rows = new long[right.length][][];
        int[] queries = new int[right.length];
        for (int i = 0; i < right.length; i++) {
            long[] query = random.longs(1 + random.nextInt(9), 0, 300).toArray();
            long[][] options = new long[2 + random.nextInt(3)][];
            Arrays.setAll(
                    options, o -> random.longs(1 + random.nextInt(6), 0, 300).toArray());
            right[i] = random.nextInt(options.length);
            queries[i] = query.length;
            rows[i] = Arrays.stream(options)
                    .map(option -> java.util.stream.LongStream.concat(Arrays.stream(query), Arrays.stream(option))
                            .toArray())
                    .toArray(long[][]::new);
            lines.add("{\"input_ids\": %s, \"choices\": %s, \"label\": %d}"
                    .formatted(Arrays.toString(query), Arrays.deepToString(options), right[i]));
        }

        ChoiceAccuracy found = measure(name, file(lines.toArray(String[]::new)));

        int bySum = 0;
        int byToken = 0;
        double chance = 0;
        try (CausalLm model = CausalLm.open(RUNTIME, MODELS.resolve(name).resolve("model.onnx"))) {
            for (int i = 0; i < rows.length; i++) {
                double[] sums = new double[rows[i].length];
                double[] means = new double[rows[i].length];
                for (int option = 0; option < sums.length; option++) {
                    sums[option] = logLikelihood(model, rows[i][option], queries[i]);
                    means[option] = sums[option] / (rows[i][option].length - queries[i]);
                }
                bySum += best(sums) == right[i] ? 1 : 0;
                byToken += best(means) == right[i] ? 1 : 0;
                chance += 1.0 / sums.length / rows.length;
            }
        }
        assertThat(found.questions()).isEqualTo(40);
        assertThat(found.accuracy()).isEqualTo(bySum / 40.0);
        assertThat(found.normalised()).isEqualTo(byToken / 40.0).isNotEqualTo(found.accuracy());
        assertThat(found.chance()).isCloseTo(chance, within(1e-12));
        assertThat(found.ofText()).isFalse();
        double p = found.accuracy();
        assertThat(found.accuracyError().orElseThrow()).isCloseTo(Math.sqrt(p * (1 - p) / 39), within(1e-12));
    }

    private static int best(double[] scores) {
        int best = 0;
        for (int i = 1; i < scores.length; i++) {
            best = scores[i] > scores[best] ? i : best;
        }
        return best;
    }

    /** Runs the model anew for every token. */
    private static double logLikelihood(CausalLm model, long[] row, int from) {
        double sum = 0;
        for (int next = from; next < row.length; next++) {
            HostTensor logits = model.logits(new long[][] {Arrays.copyOf(row, next)});
            float[] all = logits.toFloats();
            int vocabulary = (int) logits.shape()[2];
            float[] last = Arrays.copyOfRange(all, all.length - vocabulary, all.length);
            double total = 0;
            for (float value : last) {
                total += Math.exp(value);
            }
            sum += last[(int) row[next]] - Math.log(total);
        }
        return sum;
    }

    @Test
    void theUsualFormsOfText() throws IOException {
        Path data = file(
                "{\"query\": \"A dog\", \"choices\": [\"runs\", \"sits down\"], \"gold\": 1}",
                "{\"ctx\": \"A dog \", \"endings\": [\"runs\", \"sits\"], \"label\": \"0\"}",
                "{\"question\": \"A dog\", \"options\": [\" runs\", \" sits\"], \"answer\": \"b\"}",
                "{\"context\": \"A dog\", \"choices\": {\"text\": [\"is\", \"é\"], \"label\": [\"1\", \"2\"]},"
                        + " \"answerKey\": \"2\"}");
        Questions found = Questions.read(data, Optional.of(TOKENIZER));

        assertThat(found.ofText()).isTrue();
        assertThat(found.all().stream().map(Question::answer)).containsExactly(1, 0, 1, 1);
        try (TextTokenizer tokenizer = new TextTokenizer(TOKENIZER)) {
            long[] runs = tokenizer.encode("A dog runs");
            int query = tokenizer.encode("A dog").length;
            for (Question question : found.all().subList(0, 3)) {
                Choice first = question.options().get(0);
                assertThat(first.row().tokens()).isEqualTo(runs);
                assertThat(first.row().first()).isEqualTo(query);
            }
        }
        assertThat(found.all().get(0).options().stream().map(Choice::length)).containsExactly(4, 9);
        assertThat(found.all().get(2).options().get(0).length()).isEqualTo(5);
        assertThat(found.all().get(3).options().get(1).length()).isEqualTo(2);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', textBlock = """
            {"query": "a", "choices": ["b", "c"], "label": 2} | names "2" as the right one of 2 options; give a number from 0 to 1 or a letter
            {"query": "a", "choices": ["b", "c"], "label": -1} | names "-1" as the right one of 2 options
            {"query": "a", "choices": ["b", "c"], "answer": "C"} | names "C" as the right one of 2 options
            {"query": "a", "choices": {"text": ["b"], "label": ["A"]}, "answer": "0"} | names "0" as the right one of 1 options
            {"query": "a", "choices": ["b", "c"]} | has no label, answer, answerKey or gold
            {"query": "a", "choices": [], "label": 0} | has no options
            {"query": "a", "choices": "b", "label": 0} | has no options
            {"query": "a", "label": 0} | has no choices, endings or options
            {"choices": ["b"], "label": 0} | has no query, question, ctx, context or prompt
            {"query": "a", "choices": ["b", ""], "label": 0} | has an option 1 (from 0) of no tokens
            {"query": "a", "choices": ["b", 3], "label": 0} | has an option that is no text: 3
            {"input_ids": [1], "choices": [[2], []], "label": 0} | has an option 1 (from 0) of no tokens
            {"input_ids": [], "choices": [[2], [3]], "label": 0} | has no ids in input_ids
            {"input_ids": [1], "choices": [[2], ["x"]], "label": 0} | has an option's entry that is not an integer
            {"input_ids": [1], "choices": ["x"], "label": 0} | has an option that is no list of ids
            {"input_ids": [1, 2], "choices": [[2]], "label": | is not valid JSON
            """)
    void aBrokenLineIsNamed(String line, String reason) throws IOException {
        Path data = file("", line);
        assertThatThrownBy(() -> Questions.read(data, Optional.of(TOKENIZER)))
                .isInstanceOf(UserException.class)
                .hasMessageStartingWith("line 2 of " + data + ' ')
                .hasMessageContaining(reason);
    }

    @Test
    void filesThatAreNoQuestions() throws IOException {
        Path text = file("{\"query\": \"a\", \"choices\": [\"b\"], \"label\": 0}");
        assertThatThrownBy(() -> Questions.read(text, Optional.empty())).hasMessageContaining("there is no tokenizer");
        Path mixed = file(
                "{\"input_ids\": [1], \"choices\": [[2]], \"label\": 0}",
                "{\"query\": \"a\", \"choices\": [\"b\"], \"label\": 0}");
        assertThatThrownBy(() -> Questions.read(mixed, Optional.of(TOKENIZER)))
                .hasMessageContaining("line 2 of ")
                .hasMessageContaining("has no input_ids, which the lines before have");
        Path empty = file("");
        assertThatThrownBy(() -> Questions.read(empty, Optional.empty())).hasMessageContaining("has no questions");
        assertThatThrownBy(() -> Questions.read(folder.resolve("none"), Optional.empty()))
                .hasMessageContaining("does not exist");
    }

    @Test
    void rowsThatDoNotFitTheModel() throws IOException {
        String ids = "1,".repeat(300) + "1";
        Path data = file(
                "{\"input_ids\": [1], \"choices\": [[2], [3]], \"label\": 0}",
                "{\"input_ids\": [%s], \"choices\": [[2], [3, 4]], \"label\": 0}".formatted(ids));
        assertThatThrownBy(() -> measure("gpt2-cb", data))
                .hasMessageContaining("line 2 of ")
                .hasMessageContaining(" has 303 tokens with its longest option, more than the model's 128 (");
        Path large = file("{\"input_ids\": [1], \"choices\": [[2], [100000]], \"label\": 0}");
        assertThatThrownBy(() -> measure("stories-llama", large))
                .hasMessageContaining("outside the model's vocabulary");
    }
}
