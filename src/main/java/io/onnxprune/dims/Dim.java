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
 * The structure of one axis: an {@link Atom} that can be pruned, a {@link Product} of dimensions (outermost first,
 * such as {@code head × head_dim}) or a {@link Sum} (a concatenation, such as {@code q ⊕ k ⊕ v}). Every dimension has
 * two sizes, one for each of the two traced runs. A dimension whose sizes differ is dynamic.
 */
public abstract sealed class Dim {
    /** The dimension of an axis of extent one. */
    public static final Dim ONE = new Product(List.of());

    private Dim() {}

    /** The kept indices of each atom. */
    public interface Keep {
        /** The kept indices of {@code atom}, ascending; null when all are kept. */
        int[] kept(Atom atom);

        /** Number of kept indices of {@code atom}; -1 when all are kept. */
        default long count(Atom atom) {
            int[] kept = kept(atom);
            return kept == null ? -1 : kept.length;
        }

        /** Keeps all indices of all atoms. */
        Keep ALL = atom -> null;
    }

    /** The extent in the given traced run (0 or 1) when only the kept indices of each atom remain. */
    public abstract long size(int run, Keep keep);

    /** The unpruned extent in the given traced run (0 or 1). */
    public final long size(int run) {
        return size(run, Keep.ALL);
    }

    /** The extent when each atom has {@code count} units, which need not be an integer. */
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

    /** This dimension with bound atoms replaced by their bindings and nesting flattened. */
    abstract Dim resolve();

    abstract void forEachAtom(Consumer<Atom> action);

    /** A copy of this dimension with each unbound atom replaced. */
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

    /** The consecutive segments along this axis: the parts of a sum; otherwise this dimension alone. */
    public final List<Dim> segments() {
        Dim resolved = resolve();
        return resolved instanceof Sum sum ? sum.parts : List.of(resolved);
    }

    /** The unbound atoms of this dimension, in order of first occurrence. */
    public final Set<Atom> atoms() {
        Set<Atom> atoms = new LinkedHashSet<>();
        forEachAtom(atoms::add);
        return atoms;
    }

    /** Whether the extent varies between runs, such as a batch, sequence or past length. */
    public final boolean isDynamic() {
        return size(0) != size(1) || atoms().stream().anyMatch(atom -> atom.dynamic);
    }

    final boolean sameSize(Dim other) {
        return size(0) == other.size(0) && size(1) == other.size(1);
    }

    final boolean isOne() {
        return size(0) == 1 && size(1) == 1;
    }

    /** The kept indices along this axis, ascending. Only for dimensions that are not dynamic. */
    public final int[] kept(Keep keep) {
        return resolve().keptIndices(keep);
    }

    abstract int[] keptIndices(Keep keep);

    /**
     * A variable of unification: the smallest dimension that can be pruned. It is bound to another dimension when a
     * rule finds them equal or finds its structure.
     */
    public static final class Atom extends Dim {
        private static final int MAX_EVIDENCE = 32;
        private static final String INTERFACE = "an axis of graph ";
        private static final String OUTPUT = INTERFACE + "output";

        private final int id;
        private final long[] size;
        private Dim binding;
        private String pin;
        private String otherPin;
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

        /** The reason why this dimension cannot be pruned; null when it can. */
        public String pin() {
            return pin;
        }

        /**
         * The first reason besides that indices select along this dimension and that it is one of an output. Null where there
         * is none: such a dimension can lose indices together with the tokens that they stand for.
         */
        public String otherPin() {
            return otherPin;
        }

        /** Marks this dimension as not prunable. The first reason is kept. */
        void pin(String reason) {
            if (pin == null) {
                pin = reason;
            }
            if (otherPin == null && !reason.startsWith(IndexRules.LOOKED_UP) && !reason.startsWith(OUTPUT)) {
                otherPin = reason;
            }
        }

        /** Marks this dimension as one of the interface, on which callers rely. */
        void pinInterface(String place) {
            pin(INTERFACE + place);
        }

        /** Takes over the reasons of a dimension that is bound to this one. */
        void pinAs(Atom bound) {
            if (bound.pin != null) {
                pin(bound.pin);
            }
            if (bound.otherPin != null) {
                pin(bound.otherPin);
            }
        }

        void markDynamic() {
            dynamic = true;
        }

        /** The first nodes at which this dimension was found to equal another one. */
        public Set<String> evidence() {
            return evidence;
        }

        /**
         * Records nodes that tie this dimension. The residual width is tied at every node, so the number is limited.
         */
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

    /** Nested axes in one axis, outermost first. */
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

    /** Concatenated axes. */
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

    /** The product of {@code factors}, flattened and without factors of extent one. */
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
