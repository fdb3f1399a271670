package io.onnxprune.plan;

import java.util.LinkedHashMap;
import java.util.Map;

/**
 * Importance of everything that can be removed.
 *
 * @param units one score for each unit of each prunable dimension, by dimension name
 * @param layers one score for each layer
 * @param blocks one score for each residual block, in the order of {@link io.onnxprune.dims.ResidualStream#blocks()}
 */
@SuppressWarnings("ArrayRecordComponent") // bulk data, never compared
public record Scores(Map<String, double[]> units, double[] layers, double[] blocks) {
    public Scores {
        units = new LinkedHashMap<>(units);
    }
}
