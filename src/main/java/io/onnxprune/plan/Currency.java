// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Value;
import java.util.List;
import java.util.OptionalLong;
import java.util.Set;
import java.util.function.ToDoubleFunction;

/**
 * What a target is counted in: parameters, bytes or time. A currency gives a model one amount. It is the sum of the amounts of
 * its constants and of other parts, and each of these follows from the number of kept units.
 */
public interface Currency {
    /**
     * A part of a model that costs something beside its constants.
     *
     * @param needed the part goes with the blocks without which nothing needs this value; null for a part that always stays
     * @param weight a constant whose owner, such as an expert, the part belongs to; null if there is none
     * @param variables what its cost depends on
     * @param cost its cost, for a number of units of each variable that need not be an integer
     */
    record Part(
            Value needed, Value weight, Set<Dim.Atom> variables, ToDoubleFunction<ToDoubleFunction<Dim.Atom>> cost) {}

    /** The name of its unit, for messages. */
    String unit();

    /** An amount as a number of this unit, for messages. */
    String number(double amount);

    /** Whether a target is a limit. If not, the pruned model is as near to it as its units allow, above or below. */
    boolean isLimit();

    /** The parts of a model that cost something beside its constants. */
    List<Part> parts(Structure structure);

    /**
     * The amount of constants and other parts; linear in all three.
     *
     * @param parameters number of parameters
     * @param bytes stored bytes of constants
     * @param other the cost of the {@link #parts}
     */
    double amount(double parameters, double bytes, double other);

    /** The multiple of units of a dimension at which amounts are known. A budget may ask for larger multiples. */
    default int multiple(Structure structure, Dimension dimension) {
        return 1;
    }

    /** Whether fewer units may cost as much as more do. Counts that save nothing are never chosen then. */
    default boolean hasPlateaus() {
        return false;
    }

    /** The tokens of the sequence whose states count; empty where states do not. */
    default OptionalLong context() {
        return OptionalLong.empty();
    }

    /** What a pruned model costs beside what its parts tell; 0 where nothing is known of it. */
    default long extra() {
        return 0;
    }

    /** The amount of a model or of a part of it, whose size was counted in this currency. */
    default double amount(ParameterCount.Size size) {
        return amount((double) size.parameters(), (double) size.bytes(), size.other());
    }

    /** An amount with its unit, for messages. */
    default String text(double amount) {
        return number(amount) + ' ' + unit();
    }

    /** Parameters. */
    static Currency parameters() {
        return StoredCurrency.PARAMETERS;
    }

    /** Stored bytes of all constants. */
    static Currency bytes() {
        return StoredCurrency.BYTES;
    }

    /** Bytes of all constants, and of what the model remembers of one sequence of {@code context} tokens. */
    static Currency memory(long context) {
        return memory(context, 0);
    }

    /**
     * Memory with what a count of the dense model's constants does not know.
     *
     * @param extra bytes that pruning adds, such as sizes in the graph that are no longer equal
     */
    static Currency memory(long context, long extra) {
        return new MemoryCurrency(context, extra);
    }
}
