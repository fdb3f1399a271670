// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.api.RecipeSettings;
import io.onnxprune.passes.RecoverPass;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Option;

/** Options about training in a pruning run. */
final class RecoverArguments {
    @Option(
            names = "--recover",
            arity = "0..1",
            fallbackValue = RecoverPass.CALIBRATION_ROWS,
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

    /** The file of {@code --recover}, which may be the model by mistake; null for none. */
    String file() {
        return RecoverPass.CALIBRATION_ROWS.equals(data) ? null : data;
    }

    /** Passes the training options to {@code recipe}. */
    void describe(RecipeSettings recipe) {
        if (data != null) {
            recipe.recover(data);
        }
        if (never) {
            recipe.withoutRecovery();
        }
        training.given(schedule, steps).forEach(recipe::training);
    }
}
