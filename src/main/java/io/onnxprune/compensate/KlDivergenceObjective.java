// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Divergence;
import io.onnxprune.option.Named;
import java.util.List;

/**
 * The KL divergence of the predictions of the pruned model from those of the dense model. Of a model without a
 * vocabulary, such as an encoder, it is the squared error of the outputs.
 */
@Named(
        value = "kl-divergence",
        summary =
                "the KL divergence from the predictions of the dense model; for an encoder, the squared error of its outputs")
public record KlDivergenceObjective() implements CorrectionObjective {
    @Override
    public String title() {
        return "divergence from the dense model";
    }

    @Override
    public Losses open(Calibrator pruned, Calibrator dense, List<long[]> rows, List<long[]> search) {
        Divergence divergence = Divergence.from(dense, pruned, rows);
        if (search.isEmpty()) {
            return new Losses(divergence, divergence.first(SEARCH_ROWS), divergence::close);
        }
        Divergence aside = Divergence.from(dense, pruned, search);
        return new Losses(divergence, aside, () -> {
            aside.close();
            divergence.close();
        });
    }
}
