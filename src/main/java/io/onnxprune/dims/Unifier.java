// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Deque;
import java.util.List;

/**
 * Unification of dimensions, as in type inference. Two dimensions that an operator rule declares equal are made equal.
 * Atoms are split into products and sums when the other side has structure. Sizes are compared in both traced runs and
 * only inside a rule, so dimensions that happen to have equal sizes are never confused.
 */
final class Unifier {
    /** Two dimensions cannot be made equal. */
    static final class MismatchException extends Exception {
        private static final long serialVersionUID = 1L;

        MismatchException(Dim left, Dim right) {
            super("cannot relate " + left.resolve() + " to " + right.resolve());
        }
    }

    private record Pair(Dim outer, Dim inner) {}

    private int atoms;

    /** A fresh atom with the given extents in the two traced runs. */
    Dim.Atom atom(long first, long second) {
        return new Dim.Atom(atoms++, first, second);
    }

    /**
     * Makes two dimensions equal. After a failure they may be partly unified; the caller pins both.
     *
     * @param where label of the node whose rule requires this, for explanations
     * @throws MismatchException when they cannot be equal
     */
    void unify(Dim left, Dim right, String where) throws MismatchException {
        Dim a = left.resolve();
        Dim b = right.resolve();
        if (a == b) {
            return;
        }
        if (!a.sameSize(b)) {
            throw new MismatchException(a, b);
        }
        if (a instanceof Dim.Atom atom) {
            bind(atom, b, where);
        } else if (b instanceof Dim.Atom atom) {
            bind(atom, a, where);
        } else if (a instanceof Dim.Product x && b instanceof Dim.Product y) {
            unifyProducts(x.factors(), y.factors(), where);
        } else if (a instanceof Dim.Sum x && b instanceof Dim.Sum y) {
            unifySums(x.parts(), y.parts(), where);
        } else if (a instanceof Dim.Sum x) {
            unifySumWithProduct(x, (Dim.Product) b, where);
        } else {
            unifySumWithProduct((Dim.Sum) b, (Dim.Product) a, where);
        }
    }

    private static void bind(Dim.Atom atom, Dim target, String where) throws MismatchException {
        if (target.atoms().contains(atom)) {
            throw new MismatchException(atom, target);
        }
        for (Dim.Atom inner : target.atoms()) {
            inner.pinAs(atom);
            inner.addEvidence(atom.evidence());
            inner.addEvidence(List.of(where));
        }
        if (target instanceof Dim.Atom other && (atom.isDynamic() || other.isDynamic())) {
            other.markDynamic();
        }
        atom.evidence().clear();
        atom.bind(target);
    }

    private void unifyProducts(List<Dim> left, List<Dim> right, String where) throws MismatchException {
        Deque<Dim> as = new ArrayDeque<>(left);
        Deque<Dim> bs = new ArrayDeque<>(right);
        while (!as.isEmpty() && !bs.isEmpty()) {
            Dim a = as.pop().resolve();
            Dim b = bs.pop().resolve();
            if (a.sameSize(b)) {
                unify(a, b, where);
            } else if (divides(b, a)) {
                Pair pair = split(a, b);
                unify(pair.outer, b, where);
                as.push(pair.inner);
            } else if (divides(a, b)) {
                Pair pair = split(b, a);
                unify(a, pair.outer, where);
                bs.push(pair.inner);
            } else {
                throw new MismatchException(a, b);
            }
        }
        if (!as.isEmpty() || !bs.isEmpty()) {
            throw new MismatchException(Dim.product(left), Dim.product(right));
        }
    }

    private void unifySums(List<Dim> left, List<Dim> right, String where) throws MismatchException {
        Deque<Dim> as = new ArrayDeque<>(left);
        Deque<Dim> bs = new ArrayDeque<>(right);
        while (!as.isEmpty() && !bs.isEmpty()) {
            Dim a = as.pop().resolve();
            Dim b = bs.pop().resolve();
            if (a.sameSize(b)) {
                unify(a, b, where);
            } else if (a.size(0) > b.size(0)) {
                Pair pair = cut(a, b.size(0));
                unify(pair.outer, b, where);
                as.push(pair.inner);
            } else {
                Pair pair = cut(b, a.size(0));
                unify(a, pair.outer, where);
                bs.push(pair.inner);
            }
        }
        if (!as.isEmpty() || !bs.isEmpty()) {
            throw new MismatchException(Dim.sum(left), Dim.sum(right));
        }
    }

    /**
     * Unifies a sum with a product, such as (Hq·D ⊕ Hkv·D) with n × X: every part is a multiple of X, and n is (Hq ⊕
     * Hkv).
     */
    private void unifySumWithProduct(Dim.Sum sum, Dim.Product product, String where) throws MismatchException {
        List<Dim> factors = product.factors();
        Pair pair = split(sum, factors.get(0));
        unify(factors.get(0), pair.outer, where);
        unify(Dim.product(factors.subList(1, factors.size())), pair.inner, where);
    }

    private static boolean divides(Dim small, Dim large) {
        return small.size(0) > 0
                && small.size(1) > 0
                && large.size(0) % small.size(0) == 0
                && large.size(1) % small.size(1) == 0;
    }

    /** Splits {@code dim} into an outer factor of the size of {@code outer} and the inner factor that remains. */
    private Pair split(Dim dim, Dim outer) throws MismatchException {
        return split(dim.resolve(), outer.size(0), outer.size(1));
    }

    private Pair split(Dim dim, long first, long second) throws MismatchException {
        if (first == 1 && second == 1) {
            return new Pair(Dim.ONE, dim);
        }
        if (first == dim.size(0) && second == dim.size(1)) {
            return new Pair(dim, Dim.ONE);
        }
        if (first == 0 || second == 0 || dim.size(0) % first != 0 || dim.size(1) % second != 0) {
            throw new MismatchException(dim, atom(first, second));
        }
        if (dim instanceof Dim.Atom atom) {
            Dim.Atom outer = part(atom, first, second);
            Dim.Atom inner = part(atom, dim.size(0) / first, dim.size(1) / second);
            atom.bind(Dim.product(List.of(outer, inner)));
            return new Pair(outer, inner);
        }
        return dim instanceof Dim.Product product
                ? splitProduct(product, first, second)
                : splitSum((Dim.Sum) dim, first, second);
    }

    private Pair splitProduct(Dim.Product product, long first, long second) throws MismatchException {
        List<Dim> outer = new ArrayList<>();
        List<Dim> inner = new ArrayList<>(product.factors());
        long remainingFirst = first;
        long remainingSecond = second;
        while (remainingFirst != 1 || remainingSecond != 1) {
            Dim factor = inner.remove(0);
            long a = factor.size(0);
            long b = factor.size(1);
            if (remainingFirst % a == 0 && remainingSecond % b == 0) {
                outer.add(factor);
                remainingFirst /= a;
                remainingSecond /= b;
            } else {
                Pair pair = split(factor.resolve(), remainingFirst, remainingSecond);
                outer.add(pair.outer);
                inner.add(0, pair.inner);
                remainingFirst = 1;
                remainingSecond = 1;
            }
        }
        return new Pair(Dim.product(outer), Dim.product(inner));
    }

    private Pair splitSum(Dim.Sum sum, long first, long second) throws MismatchException {
        long innerFirst = sum.size(0) / first;
        long innerSecond = sum.size(1) / second;
        List<Dim> outers = new ArrayList<>();
        Dim inner = null;
        for (Dim part : sum.parts()) {
            if (part.size(0) % innerFirst != 0 || part.size(1) % innerSecond != 0) {
                throw new MismatchException(sum, atom(first, second));
            }
            long count = part.size(0) / innerFirst;
            Pair pair = split(part.resolve(), count, part.size(1) / innerSecond);
            outers.add(pair.outer.isOne() ? atom(1, 1) : pair.outer);
            if (inner == null) {
                inner = pair.inner;
            } else {
                unify(inner, pair.inner, "equal parts of one axis");
            }
        }
        return new Pair(Dim.sum(outers), inner);
    }

    /** Cuts {@code dim} after {@code count} indices, equal in both traced runs. */
    private Pair cut(Dim dim, long count) throws MismatchException {
        if (dim.isDynamic() || count <= 0 || count >= dim.size(0)) {
            throw new MismatchException(dim, atom(count, count));
        }
        if (dim instanceof Dim.Atom atom) {
            Dim.Atom head = part(atom, count, count);
            Dim.Atom tail = part(atom, atom.size(0) - count, atom.size(1) - count);
            atom.bind(Dim.sum(List.of(head, tail)));
            return new Pair(head, tail);
        }
        if (dim instanceof Dim.Sum sum) {
            List<Dim> tail = new ArrayList<>(sum.parts());
            List<Dim> head = new ArrayList<>();
            long missing = count;
            while (missing > 0) {
                Dim part = tail.remove(0).resolve();
                if (part.size(0) <= missing) {
                    head.add(part);
                    missing -= part.size(0);
                } else {
                    Pair pair = cut(part, missing);
                    head.add(pair.outer);
                    tail.add(0, pair.inner);
                    missing = 0;
                }
            }
            return new Pair(Dim.sum(head), Dim.sum(tail));
        }
        List<Dim> factors = ((Dim.Product) dim).factors();
        Dim inner = Dim.product(factors.subList(1, factors.size()));
        if (count % inner.size(0) != 0) {
            throw new MismatchException(dim, atom(count, count));
        }
        Pair outer = cut(factors.get(0).resolve(), count / inner.size(0));
        return new Pair(Dim.product(List.of(outer.outer, inner)), Dim.product(List.of(outer.inner, inner)));
    }

    /** Cuts a dimension that is not dynamic into consecutive parts. The extents must add up to its size. */
    List<Dim> cutInto(Dim dim, List<Long> extents) throws MismatchException {
        List<Dim> parts = new ArrayList<>();
        Dim remaining = dim.resolve();
        for (int i = 0; i < extents.size() - 1; i++) {
            long extent = extents.get(i);
            if (extent == 0) {
                continue;
            }
            Pair pair = cut(remaining, extent);
            parts.add(pair.outer);
            remaining = pair.inner.resolve();
        }
        parts.add(remaining);
        return parts;
    }

    /** An atom for a part of another atom, with its pin and evidence. */
    private Dim.Atom part(Dim.Atom source, long first, long second) {
        Dim.Atom part = atom(first, second);
        part.pinAs(source);
        part.addEvidence(source.evidence());
        return part;
    }
}
