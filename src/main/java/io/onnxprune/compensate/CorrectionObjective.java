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
     * @param search rows for the line search alone, of the same length; empty to search on some of {@code rows}
     * @throws io.onnxprune.diag.UserException when a run fails
     */
    Losses open(Calibrator pruned, Calibrator dense, List<long[]> rows, List<long[]> search);

    /** Number of the rows that serve the line search too, where it has none of its own. */
    int SEARCH_ROWS = 32;

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
