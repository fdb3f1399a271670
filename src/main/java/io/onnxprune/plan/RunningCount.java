// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.plan.ParameterCount.Size;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.function.ToDoubleFunction;

/**
 * Counts of kept units, and the size of the model under them. It follows one change after another, starting with the dense
 * model. Not thread-safe.
 */
final class RunningCount implements Dim.Keep {
    private static final int[] NONE = {};

    private final List<Counted> counted;
    private final Map<Dim.Atom, int[]> byVariable;
    private final Liveness liveness;
    private final Currency currency;
    private final Map<Dim.Atom, Integer> counts = new HashMap<>();
    private final Map<Dim.Atom, int[]> places = new HashMap<>();
    private final Size[] sizes;
    private final boolean[] dead;
    private Size size = new Size(0, 0);

    /**
     * Starts with the dense model.
     *
     * @param byVariable the places in {@code counted} of what depends on each variable
     */
    RunningCount(List<Counted> counted, Map<Dim.Atom, int[]> byVariable, Liveness liveness, Currency currency) {
        this.counted = counted;
        this.byVariable = byVariable;
        this.liveness = liveness;
        this.currency = currency;
        this.sizes = new Size[counted.size()];
        this.dead = new boolean[counted.size()];
        for (int index = 0; index < sizes.length; index++) {
            sizes[index] = sizeOf(counted.get(index));
            size = size.plus(sizes[index]);
        }
    }

    @Override
    public int[] kept(Dim.Atom atom) {
        throw new UnsupportedOperationException("only counts are known");
    }

    @Override
    public long count(Dim.Atom atom) {
        Integer count = counts.get(atom);
        return count == null ? -1 : count;
    }

    Size size() {
        return size;
    }

    /** The amount of the model in the currency of this count. */
    double amount() {
        return currency.amount(size);
    }

    /**
     * Says in which order the units of a dimension go, so that what only one of them uses goes with it. Without an order, it is
     * counted in part.
     */
    void order(Dimension dimension, int[] firstToGo) {
        int[] place = new int[firstToGo.length];
        for (int i = 0; i < firstToGo.length; i++) {
            place[firstToGo[i]] = i;
        }
        places.put(dimension.atom(), place);
    }

    private Size sizeOf(Counted part) {
        Dim.Atom owner = part.ownerAtom();
        Integer count = owner == null ? null : counts.get(owner);
        Size whole = part.size(this);
        return count == null ? whole : whole.times(part.owner().share(count, places.get(owner)));
    }

    /** Sets the number of kept units of {@code dimension}. Only what depends on it is recounted. */
    void keep(Dimension dimension, int count) {
        counts.put(dimension.atom(), count);
        for (int index : byVariable.getOrDefault(dimension.atom(), NONE)) {
            Size now = sizeOf(counted.get(index));
            if (!dead[index]) {
                size = size.plus(now.minus(sizes[index]));
            }
            sizes[index] = now;
        }
    }

    /** The number of kept units of {@code dimension}. */
    int kept(Dimension dimension) {
        Integer count = counts.get(dimension.atom());
        return count == null ? dimension.size() : count;
    }

    /** The size that would be saved if {@code dimensions} kept {@code count} units each. Changes nothing. */
    Size lossOf(List<Dimension> dimensions, int count) {
        Size before = size;
        int[] current = dimensions.stream().mapToInt(this::kept).toArray();
        dimensions.forEach(dimension -> keep(dimension, count));
        Size after = size;
        for (int i = 0; i < current.length; i++) {
            keep(dimensions.get(i), current[i]);
        }
        // Sums of fractions are not exact, so what was undone is not to leave a trace.
        size = before;
        return before.minus(after);
    }

    /** The amount of the model if the given variables had these numbers of units, which may be fractions. */
    double amountWith(Map<Dim.Atom, Double> units) {
        ToDoubleFunction<Dim.Atom> count =
                atom -> units.getOrDefault(atom, (double) (counts.containsKey(atom) ? counts.get(atom) : atom.size(0)));
        BitSet changed = new BitSet();
        units.keySet()
                .forEach(atom ->
                        Arrays.stream(byVariable.getOrDefault(atom, NONE)).forEach(changed::set));
        double amount = 0;
        for (int index = 0; index < sizes.length; index++) {
            if (!dead[index]) {
                amount += changed.get(index)
                        ? share(counted.get(index), units) * counted.get(index).amount(count, currency)
                        : currency.amount(sizes[index]);
            }
        }
        return amount;
    }

    private static double share(Counted part, Map<Dim.Atom, Double> units) {
        Double kept = part.owner() == null ? null : units.get(part.ownerAtom());
        return kept == null ? 1 : kept / part.owner().units();
    }

    /** Removes exactly the residual blocks of {@code removed}. */
    void remove(BitSet removed) {
        Liveness.Dead unused = liveness.deadWithout(removed);
        for (int index = 0; index < sizes.length; index++) {
            boolean dies = counted.get(index).isIn(unused);
            if (dies != dead[index]) {
                size = dies ? size.minus(sizes[index]) : size.plus(sizes[index]);
                dead[index] = dies;
            }
        }
    }
}
