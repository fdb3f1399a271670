// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Objective;
import io.onnxprune.option.Named;
import java.util.List;

/** The cross-entropy of the next tokens of the calibration rows. The dense model has no part in it. */
@Named(value = "next-token", summary = "the cross-entropy of the next tokens of the calibration rows")
public record NextTokenObjective() implements CorrectionObjective {
    @Override
    public String title() {
        return "next-token cross-entropy";
    }

    @Override
    public Losses open(Calibrator pruned, Calibrator dense, List<long[]> rows, List<long[]> search) {
        pruned.requireNextTokens();
        List<long[]> few = search.isEmpty() ? rows.subList(0, Math.min(SEARCH_ROWS, rows.size())) : search;
        return new Losses(Objective.ofNextTokens(rows), Objective.ofNextTokens(few), () -> {});
    }
}
