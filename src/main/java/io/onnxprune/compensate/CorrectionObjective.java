// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Objective;
import io.onnxprune.option.Part;
import java.util.List;

/** The loss that corrections of weights reduce. */
public interface CorrectionObjective extends Part {
    /** The name of the loss in messages. */
    String title();

    /**
     * Prepares the loss.
     *
     * @param pruned runs the pruned model
     * @param dense runs the dense model, on rows of the same length
     * @param rows token ids, each row of that length
     * @param searchRows least number of rows for the line search
     * @throws io.onnxprune.diag.UserException when a run fails
     */
    Losses open(Calibrator pruned, Calibrator dense, List<long[]> rows, int searchRows);

    /**
     * The loss on all rows and on the rows of the line search.
     *
     * @param resource is closed with this object
     */
    record Losses(Objective all, Objective search, Runnable resource) implements AutoCloseable {
        @Override
        public void close() {
            resource.run();
        }
    }
}
