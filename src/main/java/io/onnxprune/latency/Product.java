// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.latency;

import io.onnxprune.dims.Dim;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.function.ToDoubleFunction;
import org.jspecify.annotations.Nullable;

/**
 * A matrix product of a model.
 *
 * @param op computes it
 * @param weight its constant operand; null if both operands are activations, or a node computes it from constants
 * @param rows of its first operand
 * @param positions the extent of axes that vary from run to run, other than the rows
 * @param axes what its {@link ProductShape#sizes} are products of, in their order
 * @param operand the form of its second operand
 */
record Product(
        Op op, @Nullable Value weight, long rows, long positions, List<List<Dim>> axes, ProductShape.Operand operand) {
    /** Its shape in the dense model. */
    ProductShape full() {
        double[] sizes = sizes(atom -> atom.size(0));
        return new ProductShape(Math.round(sizes[0]), rows, Math.round(sizes[1]), Math.round(sizes[2]), operand);
    }

    /** Its sizes for a number of units of each variable, which need not be an integer. */
    double[] sizes(ToDoubleFunction<Dim.Atom> units) {
        return axes.stream()
                .mapToDouble(dims -> dims.stream()
                        .mapToDouble(dim -> dim.isDynamic() ? positions : dim.extent(units))
                        .reduce(1, (a, b) -> a * b))
                .toArray();
    }

    /** What its sizes depend on. */
    Set<Dim.Atom> variables() {
        Set<Dim.Atom> variables = new LinkedHashSet<>();
        axes.forEach(dims -> dims.forEach(
                dim -> dim.atoms().stream().filter(atom -> !atom.isDynamic()).forEach(variables::add)));
        return variables;
    }
}
