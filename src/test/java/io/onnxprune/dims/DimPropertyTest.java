// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.dims.Unifier.MismatchException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.stream.IntStream;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Random trees of products and sums, compared with an enumeration of every index. */
class DimPropertyTest {
    private final Unifier unifier = new Unifier();

    @ParameterizedTest
    @ValueSource(longs = {1, 2, 3, 4, 5})
    void keptIndicesMatchAnEnumeration(long seed) {
        Random random = new Random(seed);
        for (int round = 0; round < 200; round++) {
            List<Dim.Atom> atoms = new ArrayList<>();
            Dim dim = tree(random, 3, atoms);
            Map<Dim.Atom, int[]> kept = subsets(random, atoms);
            Dim.Keep keep = kept::get;
            int[] expected = enumerated(dim, kept);

            assertThat(dim.kept(keep)).as("seed %d: %s", seed, dim).isEqualTo(expected);
            assertThat(dim.size(0, keep)).as("seed %d: %s", seed, dim).isEqualTo(expected.length);
            assertThat(dim.kept(Dim.Keep.ALL)).hasSize((int) dim.size(0));
        }
    }

    /** Unified atoms keep the same indices, and sizes do not change. */
    @ParameterizedTest
    @ValueSource(longs = {1, 2, 3, 4, 5})
    void unifiedDimensionsAreKeptAlike(long seed) {
        Random random = new Random(seed);
        int related = 0;
        for (int round = 0; round < 200; round++) {
            List<Dim.Atom> atoms = new ArrayList<>();
            Dim first = tree(random, 2, atoms);
            List<Long> divisors = new ArrayList<>();
            for (long i = 1; i <= first.size(0); i++) {
                if (first.size(0) % i == 0) {
                    divisors.add(i);
                }
            }
            long outer = divisors.get(random.nextInt(divisors.size()));
            Dim right = Dim.product(
                    List.of(unifier.atom(outer, outer), unifier.atom(first.size(0) / outer, first.size(0) / outer)));
            long size = first.size(0);
            try {
                unifier.unify(first, right, "round " + round);
            } catch (MismatchException e) {
                continue;
            }
            related++;
            List<Dim.Atom> free = moreThanOne(first);
            assertThat(moreThanOne(right)).containsExactlyInAnyOrderElementsOf(free);
            Map<Dim.Atom, int[]> kept = subsets(random, free);

            assertThat(first.size(0)).isEqualTo(size);
            assertThat(first.kept(kept::get))
                    .as("seed %d: %s", seed, first.resolve())
                    .isEqualTo(right.kept(kept::get));
            assertThat(first.kept(kept::get)).isEqualTo(enumerated(first.resolve(), kept));
        }
        assertThat(related).isGreaterThan(50);
    }

    private Dim tree(Random random, int depth, List<Dim.Atom> atoms) {
        if (depth == 0 || random.nextInt(3) == 0) {
            if (!atoms.isEmpty() && random.nextInt(4) == 0) {
                return atoms.get(random.nextInt(atoms.size()));
            }
            int size = 1 + random.nextInt(5);
            Dim.Atom atom = unifier.atom(size, size);
            atoms.add(atom);
            return atom;
        }
        List<Dim> children = new ArrayList<>();
        int count = 1 + random.nextInt(3);
        for (int i = 0; i < count; i++) {
            children.add(tree(random, depth - 1, atoms));
        }
        return random.nextBoolean() ? Dim.product(children) : Dim.sum(children);
    }

    /** The atoms that can be pruned: a sum of two equal parts is (1 ⊕ 1) × part. */
    private static List<Dim.Atom> moreThanOne(Dim dim) {
        return dim.atoms().stream().filter(atom -> atom.size(0) > 1).toList();
    }

    private static Map<Dim.Atom, int[]> subsets(Random random, List<Dim.Atom> atoms) {
        Map<Dim.Atom, int[]> kept = new HashMap<>();
        for (Dim.Atom atom : atoms) {
            if (random.nextInt(3) > 0) {
                int[] some = IntStream.range(0, (int) atom.size(0))
                        .filter(index -> random.nextBoolean())
                        .toArray();
                kept.put(atom, some.length == 0 ? new int[] {0} : some);
            }
        }
        return kept;
    }

    /** Whether each index along the axis is kept, found by enumerating the axis. */
    private static int[] enumerated(Dim dim, Map<Dim.Atom, int[]> kept) {
        List<Boolean> isKept = isKept(dim, kept);
        return IntStream.range(0, isKept.size()).filter(isKept::get).toArray();
    }

    private static List<Boolean> isKept(Dim dim, Map<Dim.Atom, int[]> kept) {
        if (dim instanceof Dim.Sum sum) {
            List<Boolean> all = new ArrayList<>();
            sum.parts().forEach(part -> all.addAll(isKept(part, kept)));
            return all;
        }
        if (dim instanceof Dim.Product product) {
            List<Boolean> all = List.of(true);
            for (Dim factor : product.factors()) {
                List<Boolean> inner = isKept(factor, kept);
                List<Boolean> nested = new ArrayList<>();
                for (boolean outer : all) {
                    inner.forEach(one -> nested.add(outer && one));
                }
                all = nested;
            }
            return all;
        }
        Dim resolved = dim.resolve();
        if (resolved != dim) {
            return isKept(resolved, kept);
        }
        int[] some = kept.get((Dim.Atom) dim);
        List<Boolean> all = new ArrayList<>(Collections.nCopies((int) dim.size(0), some == null));
        if (some != null) {
            Arrays.stream(some).forEach(index -> all.set(index, true));
        }
        return all;
    }
}
