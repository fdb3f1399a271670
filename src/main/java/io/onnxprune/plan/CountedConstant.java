// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.ToDoubleFunction;

/**
 * One constant of a model.
 *
 * @param stored its elements
 * @param weights its parameters
 * @param owner the unit that alone uses it; null if it has no owner
 */
record CountedConstant(Tensor tensor, Extents stored, Extents weights, Owner owner) implements Counted {
    /** The owner of each constant that has one. */
    static Map<Tensor, Owner> owners(Structure structure) {
        Map<Tensor, Owner> owners = new HashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            List<Set<Value>> own = dimension.units().own();
            for (int unit = 0; unit < own.size(); unit++) {
                Owner owner = new Owner(dimension.atom(), unit, dimension.size());
                own.get(unit).forEach(value -> owners.put(value.constant(), owner));
            }
        }
        return owners;
    }

    /**
     * A number of elements: the product of the extents of {@code axes}, which can shrink, and of {@code fixed}.
     */
    record Extents(List<Dim> axes, long fixed) {
        long count(Dim.Keep keep) {
            long elements = fixed;
            for (Dim axis : axes) {
                elements *= axis.size(0, keep);
            }
            return elements;
        }

        private double fraction(ToDoubleFunction<Dim.Atom> units) {
            double elements = fixed;
            for (Dim axis : axes) {
                elements *= axis.extent(units);
            }
            return elements;
        }

        Extents times(long factor) {
            return new Extents(axes, fixed * factor);
        }
    }

    @Override
    public Set<Dim.Atom> variables() {
        Set<Dim.Atom> variables = new LinkedHashSet<>();
        stored.axes.forEach(axis -> variables.addAll(axis.atoms()));
        return variables;
    }

    @Override
    public boolean isIn(Liveness.Dead dead) {
        return dead.constants().contains(tensor);
    }

    @Override
    public ParameterCount.Size size(Dim.Keep keep) {
        long bytes = tensor.opaque() == null ? tensor.dtype().bytes(stored.count(keep)) : tensor.opaque().length;
        return new ParameterCount.Size(weights.count(keep), bytes);
    }

    @Override
    public double amount(ToDoubleFunction<Dim.Atom> units, Currency currency) {
        return currency.amount(
                weights.fraction(units), stored.fraction(units) * tensor.dtype().bits() / 8.0, 0);
    }
}
