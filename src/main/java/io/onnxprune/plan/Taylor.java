// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.calibrate.AxisReduction;
import io.onnxprune.calibrate.GradientSink;
import io.onnxprune.calibrate.GradientSums;
import io.onnxprune.calibrate.ResumableSink;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Tensor;
import java.io.DataInput;
import java.io.DataOutput;
import java.io.IOException;
import java.nio.FloatBuffer;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Predicate;
import org.jspecify.annotations.Nullable;

/**
 * Taylor scores: the estimated change of the loss if the weights of a unit became zero, to first or second order
 * (LLM-Pruner, arXiv 2305.11627). Let w be a weight, g = Σ gₙ / N the gradient of the mean loss over N rows, and h = Σ
 * gₙ² / N the diagonal of the empirical Fisher matrix. The score of a member for one index along its axis is summed
 * over the slice at this index:
 * <ul>
 *   <li>{@link Kind#VECTOR}: |Σ w·g|,
 *   <li>{@link Kind#ELEMENT1}: Σ |w·g|,
 *   <li>{@link Kind#ELEMENT2}: Σ w²·h,
 *   <li>{@link Kind#MIX}: Σ |w·g − ½·w²·h|.
 * </ul>
 *
 * <p>Members are reduced by channel ({@link WeightMembers}). A shared weight has one gradient, the sum over its uses,
 * and counts once. For quantised weights the integers count ({@link IntegerWeights}). For weights with a scale for each
 * block the scales count, which amounts to a sum over each block before the absolute value.
 *
 * <p>Gradients arrive one initializer at a time and are reduced at once, so that only one is in memory. Where they are
 * in the memory of a device they are reduced there.
 */
public final class Taylor implements Importance {
    /** The terms of the expansion, and where the absolute value is taken. */
    public enum Kind implements AxisReduction.Term {
        VECTOR,
        ELEMENT1,
        ELEMENT2,
        MIX;

        /** Whether sums of squared row gradients are needed. */
        public boolean needsSquares() {
            return this == ELEMENT2 || this == MIX;
        }

        /** The terms without the factor 1/N. */
        @Override
        public String append(GraphBuilder builder, String weights, String gradients, @Nullable String squares) {
            return switch (this) {
                case VECTOR -> builder.add("Mul", weights, gradients);
                case ELEMENT1 -> builder.add("Abs", builder.add("Mul", weights, gradients));
                case ELEMENT2 -> builder.add("Mul", builder.add("Mul", weights, weights), squares);
                case MIX -> {
                    Map<String, Attribute> toDouble = Map.of("to", new Attribute.Int(DType.DOUBLE.code()));
                    String half = builder.add("Cast", List.of(builder.scalar(0.5f)), toDouble);
                    String second = builder.add("Mul", builder.add("Mul", weights, weights), squares);
                    String first = builder.add("Mul", weights, gradients);
                    yield builder.add("Abs", builder.add("Sub", first, builder.add("Mul", half, second)));
                }
            };
        }
    }

    /** Computes gradients. */
    public interface Gradients {
        /** The number N of rows that gradients are summed over. */
        int rows();

        /**
         * Passes the gradients of {@code initializers} to {@code sink}. Initializers that the loss does not depend on
         * are left out.
         *
         * @param squares whether sums of squares are needed too
         */
        void run(Set<String> initializers, boolean squares, GradientSink sink);

        /**
         * The weights at which the gradient of an initializer was taken.
         *
         * @param original the weights in the model
         */
        default Tensor weights(String initializer, Tensor original) {
            return original;
        }
    }

    private final Kind kind;
    private final Reduction reduction;
    private final Predicate<Dimension> wanted;
    private final Gradients gradients;

    /** Creates scores for the structures of {@code prune}. With layers or blocks, all weights are scored. */
    public Taylor(Kind kind, Reduction reduction, PruneSet prune, Gradients gradients) {
        this(
                kind,
                reduction,
                dimension -> prune.layers() || prune.blocks() || prune.roles().contains(dimension.role()),
                gradients);
    }

    /** Creates scores for the {@code wanted} dimensions. */
    public Taylor(Kind kind, Reduction reduction, Predicate<Dimension> wanted, Gradients gradients) {
        this.kind = kind;
        this.reduction = reduction;
        this.wanted = wanted;
        this.gradients = gradients;
    }

    @Override
    public Scores score(Structure structure, Log log) {
        WeightMembers members = new WeightMembers(structure, wanted, WeightMembers.Integers.ALWAYS, log);
        Map<String, Tensor> tensors = new LinkedHashMap<>();
        members.axes().keySet().forEach(tensor -> tensors.putIfAbsent(members.name(tensor), tensor));
        // A name inside a branch may repeat one of the main graph. Then the name means the initializer of the main
        // graph.
        structure
                .analysis()
                .program()
                .model()
                .graph()
                .initializers()
                .forEach((name, tensor) -> tensors.computeIfPresent(
                        name, (key, other) -> members.axes().containsKey(tensor) ? tensor : other));
        Measured measured = new Measured(members, tensors);
        gradients.run(tensors.keySet(), kind.needsSquares(), measured);
        Map<Tensor, AxisSums> sums = measured.sums;
        for (String name : members.without(sums.keySet())) {
            log.warn("the loss does not depend on the weights of " + name + ", so all its units score 0");
        }
        return members.scores(sums, reduction);
    }

    private void check(String name, Tensor tensor, FloatBuffer sum, FloatBuffer squares) {
        boolean fits = sum.remaining() == tensor.elements();
        boolean squaresFit = !kind.needsSquares() || squares != null && squares.remaining() == tensor.elements();
        if (!fits || !squaresFit) {
            throw new IllegalStateException("the gradient of " + name + " has " + sum.remaining() + " elements"
                    + (squares == null ? "" : " and " + squares.remaining() + " squares") + ", but the tensor is "
                    + tensor);
        }
    }

    private AxisSums.Terms terms(FloatBuffer sum, FloatBuffer squares) {
        double scale = 1.0 / gradients.rows();
        int sumAt = sum.position();
        int squaresAt = squares == null ? 0 : squares.position();
        return switch (kind) {
            case VECTOR ->
                (first, weights, from, count, terms) -> {
                    int at = sumAt + (int) first;
                    for (int i = 0; i < count; i++) {
                        terms[i] = scale * weights[from + i] * sum.get(at + i);
                    }
                };
            case ELEMENT1 ->
                (first, weights, from, count, terms) -> {
                    int at = sumAt + (int) first;
                    for (int i = 0; i < count; i++) {
                        terms[i] = Math.abs(scale * weights[from + i] * sum.get(at + i));
                    }
                };
            case ELEMENT2 ->
                (first, weights, from, count, terms) -> {
                    int at = squaresAt + (int) first;
                    for (int i = 0; i < count; i++) {
                        double weight = weights[from + i];
                        terms[i] = weight * weight * scale * squares.get(at + i);
                    }
                };
            case MIX ->
                (first, weights, from, count, terms) -> {
                    int at = sumAt + (int) first;
                    int squareAt = squaresAt + (int) first;
                    for (int i = 0; i < count; i++) {
                        double weight = weights[from + i];
                        double change = weight * sum.get(at + i) - 0.5 * weight * weight * squares.get(squareAt + i);
                        terms[i] = Math.abs(scale * change);
                    }
                };
        };
    }

    /** Reduces each gradient to sums along the axes of its initializer, and keeps only these. */
    private final class Measured implements ResumableSink {
        private final WeightMembers members;
        private final Map<String, Tensor> tensors;
        private final Map<Tensor, AxisSums> sums = new HashMap<>();

        Measured(WeightMembers members, Map<String, Tensor> tensors) {
            this.members = members;
            this.tensors = tensors;
        }

        @Override
        public void accept(String name, GradientSums received) {
            Tensor tensor = tensors.get(name);
            if (tensor != null) {
                Tensor weights = gradients.weights(name, tensor);
                // Sums that are not finite are computed again from the elements, to name the element in the message.
                AxisSums measured = received.along(members.reduction(tensor, kind, weights))
                        .map(along -> AxisSums.of(tensor, along, 1.0 / gradients.rows()))
                        .filter(AxisSums::isFinite)
                        .orElseGet(() -> elementwise(name, tensor, weights, received));
                if (sums.put(tensor, measured) != null) {
                    throw new IllegalStateException("the gradient of " + name + " came twice");
                }
            }
        }

        private AxisSums elementwise(String name, Tensor tensor, Tensor weights, GradientSums received) {
            FloatBuffer sum = received.sum();
            FloatBuffer squares = received.squares();
            check(name, tensor, sum, squares);
            AxisSums.Terms terms = members.counted(tensor, terms(sum, squares));
            return new AxisSums(weights, members.axes().get(tensor), terms, members.label(tensor), elements -> {});
        }

        @Override
        public void save(DataOutput out) throws IOException {
            out.writeInt(sums.size());
            for (Map.Entry<Tensor, AxisSums> entry : sums.entrySet()) {
                out.writeUTF(members.name(entry.getKey()));
                entry.getValue().write(out);
            }
        }

        @Override
        public void restore(DataInput in) throws IOException {
            for (int count = in.readInt(); count > 0; count--) {
                Tensor tensor = tensors.get(in.readUTF());
                AxisSums read = AxisSums.read(tensor, in);
                sums.put(tensor, read);
            }
        }
    }
}
