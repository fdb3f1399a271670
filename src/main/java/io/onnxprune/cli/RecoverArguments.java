// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.diag.UsageException;
import io.onnxprune.recipe.Pass;
import io.onnxprune.recipe.PassKind;
import io.onnxprune.recipe.PlanPasses;
import io.onnxprune.recipe.Recipe;
import java.util.Map;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Option;

/** Options about training within a run of pruning. */
final class RecoverArguments {
    @Option(
            names = "--recover",
            arity = "0..1",
            fallbackValue = PassKind.CALIBRATION_ROWS,
            paramLabel = "FILE",
            description = "train the pruned model: on FILE, with data and defaults as for the command recover;"
                    + " without FILE on the calibration rows, to match the predictions of the dense model"
                    + " (default: as the method says)")
    private String data;

    @Option(names = "--no-recover", description = "do not train, whatever the method says")
    private boolean never;

    @Option(
            names = "--lr-schedule",
            paramLabel = "constant|linear|cosine",
            description = "for --recover: decay of the learning rate (default: linear; cosine without a file)")
    private String schedule;

    @Option(
            names = "--train-steps",
            paramLabel = "N",
            description = "for --recover: number of steps, overrides the epochs")
    private Integer steps;

    @ArgGroup(validate = false, exclusive = false, heading = "%nTraining with --recover:%n")
    private TrainingArguments training = new TrainingArguments();

    /** Whether {@code --recover} was given. */
    boolean isAsked() {
        return data != null;
    }

    /** What {@code --recover} names, which may be the model by mistake; null for nothing. */
    String file() {
        return PassKind.CALIBRATION_ROWS.equals(data) ? null : data;
    }

    /**
     * A recipe that trains as the command line says.
     *
     * @param length tokens of a row of the file at most; null for the usual ones
     * @throws UsageException for a value that cannot be, and for options that have no effect
     */
    Recipe applied(Recipe recipe, Integer length) {
        if (never && isAsked()) {
            throw new UsageException("--recover and --no-recover contradict each other; give one of them");
        }
        Recipe asked = never ? recipe.without(PassKind.RECOVER) : recipe;
        asked = isAsked() ? asked.adding(PassKind.RECOVER) : asked;
        asked = file() == null
                ? asked
                : asked.replacing(PlanPasses.publishedRecovery().with("data", file()));
        Pass pass = asked.pass(PassKind.RECOVER);
        Map<String, String> given = training.given(schedule, steps);
        if (pass == null && !given.isEmpty()) {
            throw new UsageException(
                    "--" + given.keySet().iterator().next() + " is for --recover, which was not given");
        }
        if (pass == null) {
            return asked;
        }
        Pass trained = TrainingArguments.applied(given, pass);
        return asked.replacing(length == null ? trained : trained.with("seq-len", Integer.toString(length)));
    }
}
