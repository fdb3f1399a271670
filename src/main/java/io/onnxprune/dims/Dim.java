// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import java.util.function.Consumer;
import java.util.function.Function;
import java.util.function.ToDoubleFunction;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/**
 * The structure of one axis: an {@link Atom} that can be pruned, a {@link Product} of dimensions (outermost first, as
 * {@code head × head_dim}) or a {@link Sum} (concatenation, as {@code q ⊕ k ⊕ v}). Sizes come in pairs, one for each of
 * the two traced runs; where they differ the dimension is dynamic.
 */
public abstract sealed class Dim {
    /** The dimension of an axis of extent one. */
    public static final Dim ONE = new Product(List.of());

    private Dim() {}

    /** Which indices of each atom stay: null for all of them. */
    public interface Keep {
        int[] kept(Atom atom);

        /** How many indices of {@code atom} stay; -1 for all of them. */
        default long count(Atom atom) {
            int[] kept = kept(atom);
            return kept == null ? -1 : kept.length;
        }

        /** Everything stays. */
        Keep ALL = atom -> null;
    }

    /** The extent in the given run (0 or 1) when only the kept indices of each atom are left. */
    public abstract long size(int run, Keep keep);

    public final long size(int run) {
        return size(run, Keep.ALL);
    }

    /** The extent when each atom has so many units, which need not be a whole number. */
    public final double extent(ToDoubleFunction<Atom> count) {
        Dim resolved = resolve();
        if (resolved instanceof Atom atom) {
            return count.applyAsDouble(atom);
        }
        if (resolved instanceof Product product) {
            return product.factors.stream()
                    .mapToDouble(factor -> factor.extent(count))
                    .reduce(1, (a, b) -> a * b);
        }
        return ((Sum) resolved)
                .parts.stream().mapToDouble(part -> part.extent(count)).sum();
    }

    /** This dimension with bound atoms replaced and nesting flattened. */
    abstract Dim resolve();

    abstract void forEachAtom(Consumer<Atom> action);

    /** This dimension with each unbound atom replaced. */
    final Dim copy(Function<Atom, Dim> replacement) {
        Dim resolved = resolve();
        if (resolved instanceof Atom atom) {
            return replacement.apply(atom);
        }
        if (resolved instanceof Product product) {
            return product(product.factors.stream()
                    .map(factor -> factor.copy(replacement))
                    .toList());
        }
        return sum(((Sum) resolved)
                .parts.stream().map(part -> part.copy(replacement)).toList());
    }

    /** What lies one after the other along this axis: the parts of a sum; of anything else, itself. */
    public final List<Dim> segments() {
        Dim resolved = resolve();
        return resolved instanceof Sum sum ? sum.parts : List.of(resolved);
    }

    /** The unbound atoms in this dimension, in order of first occurrence. */
    public final Set<Atom> atoms() {
        Set<Atom> atoms = new LinkedHashSet<>();
        forEachAtom(atoms::add);
        return atoms;
    }

    public final boolean isDynamic() {
        return size(0) != size(1) || atoms().stream().anyMatch(atom -> atom.dynamic);
    }

    final boolean sameSize(Dim other) {
        return size(0) == other.size(0) && size(1) == other.size(1);
    }

    final boolean isOne() {
        return size(0) == 1 && size(1) == 1;
    }

    /** The indices along this axis that stay, ascending. Only for dimensions that are not dynamic. */
    public final int[] kept(Keep keep) {
        return resolve().keptIndices(keep);
    }

    abstract int[] keptIndices(Keep keep);

    /** A variable: the smallest thing that can be pruned. Bound to another dimension once more is known about it. */
    public static final class Atom extends Dim {
        private static final int MAX_EVIDENCE = 32;

        private final int id;
        private final long[] size;
        private Dim binding;
        private String pin;
        private boolean dynamic;
        private final Set<String> evidence = new LinkedHashSet<>();

        Atom(int id, long first, long second) {
            this.id = id;
            this.size = new long[] {first, second};
            this.dynamic = first != second;
        }

        public int id() {
            return id;
        }

        /** Why this may not be pruned, or null. */
        public String pin() {
            return pin;
        }

        /** Marks as not prunable; the first reason stays. */
        void pin(String reason) {
            if (pin == null) {
                pin = reason;
            }
        }

        void markDynamic() {
            dynamic = true;
        }

        /** Nodes at which this was found to be the same as another dimension: the first of them. */
        public Set<String> evidence() {
            return evidence;
        }

        /** Notes what ties this; the residual width is tied at every node, so only so many are kept. */
        void addEvidence(Iterable<String> nodes) {
            for (String node : nodes) {
                if (evidence.size() >= MAX_EVIDENCE) {
                    return;
                }
                evidence.add(node);
            }
        }

        void bind(Dim target) {
            binding = target;
        }

        @Override
        public long size(int run, Keep keep) {
            if (binding != null) {
                return binding.size(run, keep);
            }
            long count = keep.count(this);
            return count < 0 ? size[run] : count;
        }

        @Override
        Dim resolve() {
            if (binding == null) {
                return this;
            }
            binding = binding.resolve();
            return binding;
        }

        @Override
        void forEachAtom(Consumer<Atom> action) {
            if (binding == null) {
                action.accept(this);
            } else {
                binding.forEachAtom(action);
            }
        }

        @Override
        int[] keptIndices(Keep keep) {
            int[] kept = keep.kept(this);
            return kept == null ? IntStream.range(0, Math.toIntExact(size[0])).toArray() : kept;
        }

        @Override
        public String toString() {
            return binding != null ? binding.toString() : (dynamic ? "~" : "") + size[0] + "#" + id;
        }
    }

    /** Nested axes laid out in one, outermost first. */
    public static final class Product extends Dim {
        private final List<Dim> factors;

        private Product(List<Dim> factors) {
            this.factors = List.copyOf(factors);
        }

        /** The factors, none of them a product. Call on a resolved dimension. */
        public List<Dim> factors() {
            return factors;
        }

        @Override
        public long size(int run, Keep keep) {
            long size = 1;
            for (Dim factor : factors) {
                size *= factor.size(run, keep);
            }
            return size;
        }

        @Override
        Dim resolve() {
            return product(factors);
        }

        @Override
        void forEachAtom(Consumer<Atom> action) {
            factors.forEach(factor -> factor.forEachAtom(action));
        }

        @Override
        int[] keptIndices(Keep keep) {
            int[] indices = {0};
            for (Dim factor : factors) {
                int extent = Math.toIntExact(factor.size(0));
                int[] inner = factor.keptIndices(keep);
                int[] combined = new int[Math.multiplyExact(indices.length, inner.length)];
                int at = 0;
                for (int outer : indices) {
                    for (int index : inner) {
                        combined[at++] = outer * extent + index;
                    }
                }
                indices = combined;
            }
            return indices;
        }

        @Override
        public String toString() {
            return factors.isEmpty()
                    ? "1"
                    : factors.stream().map(Dim::toString).collect(Collectors.joining(" × ", "(", ")"));
        }
    }

    /** Axes laid out one after the other. */
    public static final class Sum extends Dim {
        private final List<Dim> parts;

        private Sum(List<Dim> parts) {
            this.parts = List.copyOf(parts);
        }

        /** The parts, none of them a sum. Call on a resolved dimension. */
        public List<Dim> parts() {
            return parts;
        }

        @Override
        public long size(int run, Keep keep) {
            long size = 0;
            for (Dim part : parts) {
                size += part.size(run, keep);
            }
            return size;
        }

        @Override
        Dim resolve() {
            return sum(parts);
        }

        @Override
        void forEachAtom(Consumer<Atom> action) {
            parts.forEach(part -> part.forEachAtom(action));
        }

        @Override
        int[] keptIndices(Keep keep) {
            IntStream.Builder indices = IntStream.builder();
            int offset = 0;
            for (Dim part : parts) {
                for (int index : part.keptIndices(keep)) {
                    indices.add(offset + index);
                }
                offset += Math.toIntExact(part.size(0));
            }
            return indices.build().toArray();
        }

        @Override
        public String toString() {
            return parts.stream().map(Dim::toString).collect(Collectors.joining(" ⊕ ", "[", "]"));
        }
    }

    /** The product of {@code factors}, flattened, without factors of extent one. */
    static Dim product(List<Dim> factors) {
        List<Dim> flat = new ArrayList<>();
        for (Dim factor : factors) {
            Dim resolved = factor.resolve();
            if (resolved instanceof Product product) {
                flat.addAll(product.factors);
            } else if (!resolved.isOne()) {
                flat.add(resolved);
            }
        }
        return flat.isEmpty() ? ONE : flat.size() == 1 ? flat.get(0) : new Product(flat);
    }

    /** The concatenation of {@code parts}, flattened. */
    static Dim sum(List<Dim> parts) {
        List<Dim> flat = new ArrayList<>();
        for (Dim part : parts) {
            Dim resolved = part.resolve();
            if (resolved instanceof Sum sum) {
                flat.addAll(sum.parts);
            } else if (resolved.size(0) != 0 || resolved.size(1) != 0) {
                flat.add(resolved);
            }
        }
        return flat.size() == 1 ? flat.get(0) : new Sum(flat);
    }
}
