// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.autodiff.CausalLmLoss;
import io.onnxprune.autodiff.DrawnTokens;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.runtime.HostTensor;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.function.ToLongFunction;

/** What a model is measured by on rows of tokens: one number for each row, computed from the logits at its positions. */
public abstract sealed class Objective permits Objective.NextToken, Divergence {
    /**
     * What is added to the last segment.
     *
     * @param rows the value with the losses of a batch, [batch], float32
     * @param gradient the value with the gradient of their sum by the logits
     * @param feeds what the added inputs get for a batch
     */
    record Part(String rows, String gradient, Feeds feeds) {}

    /** Finds what a batch is fed with. */
    interface Feeds {
        Map<String, HostTensor> of(Batches batches, int batch);
    }

    /** The last segment of a model, which yields its logits. */
    record End(Objective objective, Segment segment, Calibrator model) {
        /** Appends the losses and their gradient. */
        Part append(GraphBuilder builder, List<ValueInfo> inputs) {
            return objective.append(this, builder, inputs);
        }

        /** The contents of a constant of the segment in this run; null for anything else. */
        Tensor contents(String name) {
            Value value = segment.constants().get(name);
            return value == null ? null : model.weights().getOrDefault(name, value.constant());
        }
    }

    /** The rows that are run. */
    abstract List<long[]> rows();

    /** The rows of each batch; null for as many at a time as memory allows. */
    abstract List<int[]> batches();

    /** Bytes that are held in memory all the time. */
    abstract long heldBytes();

    /** Bytes that the added part takes while a batch of so many rows goes through the last segment. */
    abstract ToLongFunction<Integer> bytes();

    /**
     * Appends the losses and their gradient.
     *
     * @param inputs takes what is read beside the segment's own values
     */
    abstract Part append(End end, GraphBuilder builder, List<ValueInfo> inputs);

    /**
     * The mean cross-entropy of each token but the first, given those before it: of the tokens that follow in the data, or of
     * such as the model itself draws at each position. Squares of gradients of the former make the empirical Fisher matrix, those of
     * the latter the true one (Martens and Grosse, arXiv 1503.05671, section 5).
     */
    static final class NextToken extends Objective {
        private final List<long[]> rows;
        private final boolean drawn;

        /** The tokens that follow in the data. */
        NextToken(List<long[]> rows) {
            this(rows, false);
        }

        private NextToken(List<long[]> rows, boolean drawn) {
            this.rows = rows;
            this.drawn = drawn;
        }

        /** Each row so often, each time with other tokens that the model draws; 0 times for the tokens of the data. */
        static NextToken drawn(List<long[]> rows, int times) {
            return times == 0
                    ? new NextToken(rows)
                    : new NextToken(
                            Collections.nCopies(times, rows).stream()
                                    .flatMap(List::stream)
                                    .toList(),
                            true);
        }

        @Override
        List<long[]> rows() {
            return rows;
        }

        @Override
        List<int[]> batches() {
            return null;
        }

        @Override
        long heldBytes() {
            return 0;
        }

        @Override
        ToLongFunction<Integer> bytes() {
            return rows -> 0;
        }

        @Override
        Part append(End end, GraphBuilder builder, List<ValueInfo> inputs) {
            Value tokens = end.model().tokens();
            String logits = end.segment().output().name();
            String next = drawn ? DrawnTokens.append(logits, tokens.name(), builder) : tokens.name();
            CausalLmLoss loss = CausalLmLoss.append(logits, next, builder);
            if (!end.segment().given().contains(tokens)) {
                inputs.add(Segment.declare(tokens.name(), end.model().trace().dtype(tokens)));
            }
            return new Part(
                    loss.rows(),
                    loss.gradient(),
                    (batches, batch) ->
                            Map.of(tokens.name(), batches.inputs(batch).get(tokens.name())));
        }
    }
}
