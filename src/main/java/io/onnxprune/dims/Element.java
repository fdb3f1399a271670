// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.function.Consumer;
import java.util.function.LongBinaryOperator;

/**
 * One element of an integer tensor as a term over sizes: what a shape computation yields after pruning, when nothing in
 * it is patched.
 */
sealed interface Element {
    /** The value in a run when only the kept indices of each atom are left. */
    long value(int run, Dim.Keep keep);

    /** The dimensions whose sizes this is computed from. */
    default void forEachDim(Consumer<Dim> action) {}

    /** A number in the model. */
    record Literal(long number) implements Element {
        @Override
        public long value(int run, Dim.Keep keep) {
            return number;
        }
    }

    /** An extent read by Shape or Size; it follows the tensor. */
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

    /** Computed in a way that is not followed; as traced, taken not to depend on what is pruned. */
    record Traced(long first, long second) implements Element {
        @Override
        public long value(int run, Dim.Keep keep) {
            return run == 0 ? first : second;
        }
    }
}
