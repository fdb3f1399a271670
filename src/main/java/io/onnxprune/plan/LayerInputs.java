// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.Collection;
import java.util.Map;

/** Measures the inputs of linear layers over rows of tokens. */
public interface LayerInputs {
    /**
     * Sums over all positions of the input X {@code [positions, n]} of a linear layer. A pruned channel counts as zero.
     *
     * @param positions number of positions; fewer than tokens where an expert gets only some of them
     * @param total Σx of each channel, {@code [n]}
     * @param squares Σx² of each channel, {@code [n]}
     */
    @SuppressWarnings("ArrayRecordComponent") // bulk data, never compared
    record Channels(long positions, double[] total, double[] squares) {
        /** The mean of a channel; 0 without positions. */
        public double mean(int channel) {
            return positions == 0 ? 0 : total[channel] / positions;
        }

        /** The root mean square of a channel; 0 without positions. */
        public double rootMeanSquare(int channel) {
            return positions == 0 ? 0 : Math.sqrt(squares[channel] / positions);
        }

        /** The sample variance of a channel, with divisor positions - 1; 0 for fewer than two positions. */
        public double variance(int channel) {
            double deviations = squares[channel] - total[channel] * mean(channel);
            return positions < 2 ? 0 : Math.max(0, deviations) / (positions - 1);
        }
    }

    /**
     * Measures the inputs of {@code layers}.
     *
     * @return the sums by the weight of each layer
     * @throws io.onnxprune.diag.UserException if the model cannot be run, or no token reaches a layer
     */
    Map<Value, Channels> measure(Collection<LinearLayer> layers);

    /** The current weight of a layer, in the shape of the dense model. */
    default Tensor weight(LinearLayer layer) {
        return layer.weight().constant();
    }
}
