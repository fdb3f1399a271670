// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import io.onnxprune.eval.CalibrationData;
import io.onnxprune.eval.DataRequest;
import io.onnxprune.eval.Evaluation;
import io.onnxprune.pass.SharedSteps;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * What runs on one model share: their rows, the evaluation of the dense model, and the states that runs of one recipe come to.
 *
 * @param known by request
 * @param steps of the recipe that runs now
 */
record SharedRuns(Map<DataRequest, Measured> known, SharedSteps steps) {
    /**
     * The rows of a request.
     *
     * @param hasLoss whether the model has a loss of next tokens
     * @param before the dense model on the held-out rows; empty where it was not evaluated
     */
    record Measured(CalibrationData data, boolean hasLoss, Optional<Evaluation> before) {}

    /** Nothing is known yet. */
    static SharedRuns with(SharedSteps steps) {
        return new SharedRuns(new HashMap<>(), steps);
    }

    /** The same with the states of another recipe. */
    SharedRuns of(SharedSteps others) {
        return new SharedRuns(known, others);
    }

    Optional<Measured> find(DataRequest request) {
        return Optional.ofNullable(known.get(request));
    }

    void keep(DataRequest request, Measured measured) {
        known.put(request, measured);
    }

    /** The dense model on the held-out rows of {@code data}, if it was measured on equal ones. */
    Optional<Evaluation> before(CalibrationData data) {
        return known.values().stream()
                .filter(other -> areEqual(other.data.heldOut(), data.heldOut()))
                .flatMap(other -> other.before.stream())
                .findFirst();
    }

    /** Whether all runs so far measure perplexity on the same rows. */
    boolean haveOneMeasure() {
        List<Measured> all = List.copyOf(known.values());
        return all.stream()
                .allMatch(
                        other -> areEqual(other.data.heldOut(), all.get(0).data.heldOut()));
    }

    private static boolean areEqual(List<long[]> one, List<long[]> other) {
        return Arrays.deepEquals(one.toArray(), other.toArray());
    }
}
