// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dim;
import java.util.Set;
import java.util.function.ToDoubleFunction;

/** A part of a model that a count follows. */
interface Counted {
    /** A unit of a dimension of {@code units} units, which alone uses a part of the model. */
    record Owner(Dim.Atom atom, int unit, int units) {
        /**
         * The share of the part that is left when {@code count} units of the owner's dimension are kept.
         *
         * @param place the place of each unit in the order in which they go; null if it is not known
         */
        double share(int count, int[] place) {
            double gone = units - count;
            return place == null ? (double) count / units : place[unit] < gone ? 0 : 1;
        }
    }

    /** The unit that alone uses it; null if it has no owner. */
    Owner owner();

    /** What its size depends on. */
    Set<Dim.Atom> variables();

    /** Whether it goes with what becomes unused. */
    boolean isIn(Liveness.Dead dead);

    /** The size of what is left of it, if its owner is kept. */
    ParameterCount.Size size(Dim.Keep keep);

    /** Its amount if each variable has {@code units} units, which need not be an integer. */
    double amount(ToDoubleFunction<Dim.Atom> units, Currency currency);

    /** The variable whose unit is the owner; null if there is none. */
    default Dim.Atom ownerAtom() {
        return owner() == null ? null : owner().atom();
    }

    /** A part of a currency. */
    record OfCurrency(Currency.Part part, Owner owner) implements Counted {
        @Override
        public Set<Dim.Atom> variables() {
            return part.variables();
        }

        @Override
        public boolean isIn(Liveness.Dead dead) {
            return dead.values().contains(part.needed());
        }

        @Override
        public ParameterCount.Size size(Dim.Keep keep) {
            double cost = part.cost().applyAsDouble(atom -> atom.size(0, keep));
            return new ParameterCount.Size(0, 0, cost);
        }

        @Override
        public double amount(ToDoubleFunction<Dim.Atom> units, Currency currency) {
            return currency.amount(0, 0, part.cost().applyAsDouble(units));
        }
    }
}
