// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dim;
import io.onnxprune.dims.StateSize;
import io.onnxprune.dims.Structure;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.OptionalLong;
import java.util.Set;

/**
 * Bytes of all constants, and of the states of one sequence: caches of keys and values, and states of convolutions and
 * recurrences.
 *
 * @param tokens of the sequence
 * @param extra bytes that pruning adds
 */
record MemoryCurrency(long tokens, long extra) implements Currency {
    @Override
    public String unit() {
        return StoredCurrency.BYTES.unit();
    }

    @Override
    public String number(double amount) {
        return StoredCurrency.BYTES.number(amount);
    }

    /** What does not fit into a memory does not run. */
    @Override
    public boolean isLimit() {
        return true;
    }

    @Override
    public List<Part> parts(Structure structure) {
        List<Part> parts = new ArrayList<>(List.of(new Part(null, null, Set.of(), units -> extra)));
        StateSize.of(structure.analysis(), tokens).forEach(state -> parts.add(part(state)));
        return parts;
    }

    private static Part part(StateSize state) {
        Set<Dim.Atom> variables = new LinkedHashSet<>();
        state.axes().forEach(axis -> variables.addAll(axis.atoms()));
        return new Part(state.input(), null, variables, state::bytes);
    }

    @Override
    public OptionalLong context() {
        return OptionalLong.of(tokens);
    }

    @Override
    public double amount(double parameters, double bytes, double other) {
        return bytes + other;
    }
}
