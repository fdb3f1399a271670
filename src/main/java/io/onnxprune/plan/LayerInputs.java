// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.Collection;
import java.util.Map;

/** What products with constant matrices read, over rows of tokens. */
public interface LayerInputs {
    /**
     * Sums over all positions of the input X {@code [positions, n]} of a product. A channel that is gone already reads as
     * zero.
     *
     * @param positions how many there are; fewer than tokens where an expert sees only some of them
     * @param total Σx of each channel, {@code [n]}
     * @param squares Σx² of each channel, {@code [n]}
     */
    @SuppressWarnings("ArrayRecordComponent") // bulk data, never compared
    record Channels(long positions, double[] total, double[] squares) {
        /** The mean of a channel; 0 if nothing was read. */
        public double mean(int channel) {
            return positions == 0 ? 0 : total[channel] / positions;
        }

        /** √(mean of the squares) of a channel. */
        public double rootMeanSquare(int channel) {
            return positions == 0 ? 0 : Math.sqrt(squares[channel] / positions);
        }

        /** The variance of a channel over positions, with divisor positions - 1. */
        public double variance(int channel) {
            double deviations = squares[channel] - total[channel] * mean(channel);
            return positions < 2 ? 0 : Math.max(0, deviations) / (positions - 1);
        }
    }

    /**
     * Measures what {@code consumers} read, by the weight of each.
     *
     * @throws io.onnxprune.diag.UserException if the model cannot be run, or tokens do not reach a product
     */
    Map<Value, Channels> measure(Collection<LinearLayer> consumers);

    /** What the matrix of a product holds now, in the shape of the original. */
    default Tensor weight(LinearLayer consumer) {
        return consumer.weight().constant();
    }
}
