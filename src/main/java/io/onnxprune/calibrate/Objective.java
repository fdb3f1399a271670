// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.autodiff.CausalLmLoss;
import io.onnxprune.autodiff.DrawnOutputs;
import io.onnxprune.autodiff.DrawnTokens;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.RuntimeTensor;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.function.ToLongFunction;

/** A loss of a model on rows of tokens: one number for each row, computed from the logits at its positions. */
public abstract sealed class Objective permits Objective.NextToken, Divergence {
    /**
     * The nodes that compute the loss in the last segment.
     *
     * @param rows the value with the losses of a batch, {@code [batch]}, float32
     * @param gradient the value with the gradient of the sum of the losses by the logits
     * @param feeds the feeds of the added inputs for a batch
     */
    record Part(String rows, String gradient, Feeds feeds) {}

    /** Finds the feeds of the added inputs for a batch. */
    interface Feeds {
        Map<String, ? extends RuntimeTensor> of(Batches batches, int batch);
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

    /** The mean next-token cross-entropy of each row, with the next tokens of the data. */
    public static Objective ofNextTokens(List<long[]> rows) {
        return new NextToken(rows);
    }

    /** The rows to run. */
    abstract List<long[]> rows();

    /** The rows of each batch; null to run as many at a time as memory allows. */
    abstract List<int[]> batches();

    /** Bytes that are in memory for the entire run. */
    abstract long heldBytes();

    /** Bytes that the added nodes use in the last segment, by the number of rows of a batch. */
    abstract ToLongFunction<Integer> bytes();

    /**
     * Appends the losses and their gradient.
     *
     * @param inputs receives the added inputs, beside those of the segment
     */
    abstract Part append(End end, GraphBuilder builder, List<ValueInfo> inputs);

    /**
     * The mean next-token cross-entropy of a row. The next tokens are those of the data, or tokens that the model
     * itself draws at each position, as where the rows are embeddings of unknown tokens. A model without a vocabulary
     * draws outputs instead. Squared gradients of the former give the empirical Fisher matrix, those of the
     * latter the true Fisher matrix (Martens and Grosse, arXiv 1503.05671, section 5).
     */
    static final class NextToken extends Objective {
        private final List<long[]> rows;
        private final boolean drawn;

        /** Creates the loss of the next tokens of the data. */
        NextToken(List<long[]> rows) {
            this(rows, false);
        }

        private NextToken(List<long[]> rows, boolean drawn) {
            this.rows = rows;
            this.drawn = drawn;
        }

        /**
         * Creates the loss over {@code times} copies of each row, each with other tokens that the model draws. With 0
         * times, it is the loss of the next tokens of the data.
         */
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
            String output = end.segment().output().name();
            ModelInterface graph = end.model().graph();
            if (graph.logits().isEmpty()) {
                DrawnOutputs loss = DrawnOutputs.append(output, builder);
                return new Part(loss.rows(), loss.gradient(), (batches, batch) -> Map.of());
            }
            Value given = end.model().rowsInput();
            String tokens = graph.takesTokens() ? given.name() : builder.freshName();
            boolean draws = drawn || !graph.knowsTokens();
            String next = draws ? DrawnTokens.append(output, tokens, builder) : tokens;
            CausalLmLoss loss = CausalLmLoss.append(output, next, builder);
            if (!graph.takesTokens()) {
                inputs.add(Segment.declare(tokens, DType.INT64));
            } else if (!end.segment().given().contains(given)) {
                inputs.add(Segment.declare(tokens, end.model().trace().dtype(given)));
            }
            return new Part(
                    loss.rows(),
                    loss.gradient(),
                    (batches, batch) -> Map.of(
                            tokens,
                            graph.takesTokens()
                                    ? batches.inputs(batch).get(tokens)
                                    : batches.tokenIds(batch, graph.knowsTokens())));
        }
    }
}
