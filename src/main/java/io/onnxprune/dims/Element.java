// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.function.Consumer;
import java.util.function.LongBinaryOperator;

/**
 * One element of an integer tensor as a term over sizes. It gives the result of a shape computation after pruning when
 * nothing in it is patched.
 */
sealed interface Element {
    /** The value in a traced run (0 or 1) when only the kept indices of each atom remain. */
    long value(int run, Dim.Keep keep);

    /** Visits the dimensions whose sizes this is computed from. */
    default void forEachDim(Consumer<Dim> action) {}

    /** A number that is stored in the model. */
    record Literal(long number) implements Element {
        @Override
        public long value(int run, Dim.Keep keep) {
            return number;
        }
    }

    /** An extent from Shape or Size, which adapts to the tensor. */
    record SizeOf(Dim dim) implements Element {
        @Override
        public long value(int run, Dim.Keep keep) {
            return dim.size(run, keep);
        }

        @Override
        public void forEachDim(Consumer<Dim> action) {
            action.accept(dim);
        }
    }

    /** Arithmetic on two elements. */
    record Combined(LongBinaryOperator operator, Element left, Element right) implements Element {
        @Override
        public long value(int run, Dim.Keep keep) {
            return operator.applyAsLong(left.value(run, keep), right.value(run, keep));
        }

        @Override
        public void forEachDim(Consumer<Dim> action) {
            left.forEachDim(action);
            right.forEachDim(action);
        }
    }

    /** One of two elements, chosen by a third. */
    record Choice(Element condition, Element yes, Element no) implements Element {
        @Override
        public long value(int run, Dim.Keep keep) {
            return condition.value(run, keep) != 0 ? yes.value(run, keep) : no.value(run, keep);
        }
    }

    /** The result of a computation that is not analysed: the traced values, assumed not to depend on pruning. */
    record Traced(long first, long second) implements Element {
        @Override
        public long value(int run, Dim.Keep keep) {
            return run == 0 ? first : second;
        }
    }
}
