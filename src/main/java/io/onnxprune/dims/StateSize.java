// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.State;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.function.ToDoubleFunction;
import java.util.stream.Collectors;

/**
 * The size of what a model remembers of one sequence: of a cache, or of the state of a convolution or of a recurrence.
 *
 * @param input the graph input that holds it
 * @param dtype its declared type
 * @param axes its axes that follow from the network
 * @param positions the product of the extents of the others: 1 for the batch, the length of the sequence where positions lie
 */
public record StateSize(Value input, DType dtype, List<Dim> axes, long positions) {
    /**
     * The states of a model after {@code tokens} tokens of one sequence. Where a state is as long as the context of an encoder,
     * the context has as many.
     */
    public static List<StateSize> of(DimensionAnalysis analysis, long tokens) {
        List<StateSize> sizes = new ArrayList<>();
        for (State state : analysis.states()) {
            Value input = analysis.program().input(state.input().name());
            Dim[] dims = analysis.dims(input);
            List<Dim> axes = new ArrayList<>();
            long positions = 1;
            for (int axis = 0; axis < dims.length; axis++) {
                if (axis == state.pastAxis() || axis == state.contextAxis()) {
                    positions *= tokens;
                } else {
                    axes.add(dims[axis]);
                }
            }
            sizes.add(new StateSize(input, input.info().dtype(), axes, positions));
        }
        return sizes;
    }

    /** Bytes for a number of units of each variable, which need not be an integer. A batch is of one sequence. */
    public double bytes(ToDoubleFunction<Dim.Atom> units) {
        double elements = positions;
        for (Dim axis : axes) {
            elements *= axis.extent(atom -> atom.isDynamic() ? 1 : units.applyAsDouble(atom));
        }
        return Math.ceil(elements * dtype.bits() / Byte.SIZE);
    }

    /**
     * Bytes of all states that a graph declares, after {@code tokens} tokens of one sequence.
     *
     * @param dense the model that the graph was made of: it tells extents that the graph leaves open, such as a symbolic head size
     */
    public static long bytes(Graph graph, long tokens, DimensionAnalysis dense) {
        Map<String, DType> types =
                graph.inputs().stream().collect(Collectors.toMap(ValueInfo::name, ValueInfo::dtype, (a, b) -> a));
        long sum = 0;
        for (State state : ModelInterface.of(graph).states()) {
            long[] shape = state.input().shape();
            long elements = 1;
            for (int axis = 0; axis < shape.length; axis++) {
                boolean positions = axis == state.pastAxis() || axis == state.contextAxis();
                elements *= positions
                        ? tokens
                        : shape[axis] >= 0
                                ? shape[axis]
                                : axis == state.batchAxis()
                                        ? 1
                                        : dense
                                                .dims(dense.program()
                                                        .input(state.input().name()))[axis].size(0);
            }
            sum += types.get(state.input().name()).bytes(elements);
        }
        return sum;
    }
}
