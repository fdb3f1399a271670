// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import io.onnxprune.eval.Questions.Question;
import java.util.List;
import java.util.OptionalDouble;

/**
 * How often a model finds the right one of several options. The score of an option is the log-likelihood of its tokens
 * after the query, log p(option | query) = Σ log p(token | all before); the option with the highest score is chosen, the
 * first of equal ones (lm-evaluation-harness, task type multiple_choice).
 *
 * @param questions number of questions
 * @param accuracy share of questions whose right option has the highest score, in [0, 1]
 * @param normalised the same with scores divided by the length of the option: by the bytes of its text in UTF-8, or by
 *     the number of its ids
 * @param chance share that guessing finds: the mean of 1 / options
 * @param ofText whether the questions are of text
 * @param tokens number of predicted tokens
 */
public record ChoiceAccuracy(
        int questions, double accuracy, double normalised, double chance, boolean ofText, long tokens) {
    /** Measures a model on questions whose ids and lengths fit it. */
    static ChoiceAccuracy measure(CausalLm model, Questions questions, Log log) {
        List<Example> rows = questions.rows();
        double[] nll = Perplexity.ofRows(model, rows, "choices", log);
        int next = 0;
        int right = 0;
        int rightNormalised = 0;
        double chance = 0;
        for (Question question : questions.all()) {
            int options = question.options().size();
            int best = 0;
            int bestNormalised = 0;
            for (int i = 1; i < options; i++) {
                best = nll[next + i] < nll[next + best] ? i : best;
                bestNormalised = scaled(nll, next, question, i) < scaled(nll, next, question, bestNormalised)
                        ? i
                        : bestNormalised;
            }
            right += best == question.answer() ? 1 : 0;
            rightNormalised += bestNormalised == question.answer() ? 1 : 0;
            chance += 1.0 / options;
            next += options;
        }
        int count = questions.all().size();
        return new ChoiceAccuracy(
                count,
                (double) right / count,
                (double) rightNormalised / count,
                chance / count,
                questions.ofText(),
                rows.stream().mapToLong(Example::predictions).sum());
    }

    private static double scaled(double[] nll, int first, Question question, int option) {
        return nll[first + option] / question.options().get(option).length();
    }

    /** The standard error of {@link #accuracy}. */
    public OptionalDouble accuracyError() {
        return error(accuracy);
    }

    /** The standard error of {@link #normalised}. */
    public OptionalDouble normalisedError() {
        return error(normalised);
    }

    /** √(p (1 - p) / (n - 1)); empty for a single question. */
    private OptionalDouble error(double share) {
        return questions < 2
                ? OptionalDouble.empty()
                : OptionalDouble.of(Math.sqrt(share * (1 - share) / (questions - 1)));
    }
}
