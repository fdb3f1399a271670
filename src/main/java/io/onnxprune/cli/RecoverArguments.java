// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.api.RecipeSettings;
import io.onnxprune.passes.RecoverPass;
import picocli.CommandLine.ArgGroup;
import picocli.CommandLine.Option;

/** Options about training within a run of pruning. */
final class RecoverArguments {
    @Option(
            names = "--recover",
            arity = "0..1",
            fallbackValue = RecoverPass.CALIBRATION_ROWS,
            paramLabel = "FILE",
            description = "train the smaller model: on FILE, data as for the command recover, with its defaults; or"
                    + " without one on the calibration rows, to make the predictions of the whole model (default: as the"
                    + " method says)")
    private String data;

    @Option(names = "--no-recover", description = "do not train, whatever the method says")
    private boolean never;

    @Option(
            names = "--lr-schedule",
            paramLabel = "constant|linear|cosine",
            description = "for --recover: how the learning rate falls (default: linear; cosine without a file)")
    private String schedule;

    @Option(names = "--train-steps", paramLabel = "N", description = "for --recover: steps, whatever the epochs")
    private Integer steps;

    @ArgGroup(validate = false, exclusive = false, heading = "%nHow --recover trains:%n")
    private TrainingArguments training = new TrainingArguments();

    /** The file that {@code --recover} names, which may be the model by mistake; null for none. */
    String file() {
        return RecoverPass.CALIBRATION_ROWS.equals(data) ? null : data;
    }

    /** Describes the training to {@code recipe}. */
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
