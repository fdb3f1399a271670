// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.dims.Unifier.MismatchException;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class UnifierTest {
    private final Unifier unifier = new Unifier();

    @Test
    void twoVariablesBecomeOne() throws MismatchException {
        Dim.Atom a = atom(8);
        Dim.Atom b = atom(8);
        unifier.unify(a, b, "here");

        assertThat(a.resolve()).isSameAs(b.resolve());
        assertThat(((Dim.Atom) a.resolve()).evidence()).containsExactly("here");
    }

    @Test
    void differentSizesDoNotMatch() {
        assertThatThrownBy(() -> unifier.unify(atom(8), atom(9), "here"))
                .isInstanceOf(MismatchException.class)
                .hasMessage("cannot relate 8#0 to 9#1");
        assertThatThrownBy(() -> unifier.unify(unifier.atom(6, 6), unifier.atom(6, 10), "here"))
                .isInstanceOf(MismatchException.class);
    }

    @Test
    void aVariableIsSplitByAProduct() throws MismatchException {
        Dim.Atom axis = atom(32);
        Dim.Atom heads = atom(4);
        Dim.Atom size = atom(8);
        unifier.unify(axis, Dim.product(List.of(heads, size)), "reshape");

        assertThat(text(axis)).isEqualTo(text(Dim.product(List.of(heads, size))));
        assertThat(axis.atoms()).containsExactly(heads, size);
    }

    @Test
    void productsAlignFromTheOutside() throws MismatchException {
        Dim.Atom a = atom(4);
        Dim.Atom bc = atom(6);
        Dim.Atom ab = atom(8);
        Dim.Atom c = atom(3);
        unifier.unify(Dim.product(List.of(a, bc)), Dim.product(List.of(ab, c)), "reshape");

        // 4 × 6 and 8 × 3 become 4 × 2 × 3.
        assertThat(bc.resolve()).isInstanceOf(Dim.Product.class);
        assertThat(ab.resolve()).isInstanceOf(Dim.Product.class);
        assertThat(sizes(Dim.product(List.of(a, bc)))).containsExactly(4L, 2L, 3L);
        assertThat(bc.atoms()).endsWith((Dim.Atom) c.resolve());
        assertThat(ab.atoms()).startsWith((Dim.Atom) a.resolve());
    }

    @Test
    void productsThatDoNotAlignDoNotMatch() {
        assertThatThrownBy(() -> unifier.unify(
                        Dim.product(List.of(atom(4), atom(9))), Dim.product(List.of(atom(6), atom(6))), "reshape"))
                .isInstanceOf(MismatchException.class);
    }

    @Test
    void dynamicFactorsStayApartFromTheirNeighbours() throws MismatchException {
        Dim.Atom batch = unifier.atom(2, 3);
        Dim.Atom heads = atom(4);
        Dim.Atom folded = unifier.atom(8, 12);
        unifier.unify(folded, Dim.product(List.of(batch, heads)), "reshape");

        assertThat(folded.isDynamic()).isTrue();
        assertThat(batch.isDynamic()).isTrue();
        assertThat(heads.isDynamic()).isFalse();
    }

    @Test
    void sumsAlignFromTheFront() throws MismatchException {
        Dim.Atom a = atom(5);
        Dim.Atom bc = atom(7);
        Dim.Atom ab = atom(8);
        Dim.Atom c = atom(4);
        unifier.unify(Dim.sum(List.of(a, bc)), Dim.sum(List.of(ab, c)), "concat");

        assertThat(sizes(Dim.sum(List.of(a, bc)))).containsExactly(5L, 3L, 4L);
        assertThat(bc.atoms()).endsWith((Dim.Atom) c.resolve());
        assertThat(ab.atoms()).startsWith((Dim.Atom) a.resolve());
    }

    @Test
    void aSumDistributesOverAProduct() throws MismatchException {
        Dim.Atom queries = atom(6);
        Dim.Atom keys = atom(2);
        Dim.Atom first = atom(16);
        Dim.Atom second = atom(16);
        Dim.Atom count = atom(8);
        Dim.Atom inner = atom(16);
        unifier.unify(
                Dim.sum(List.of(Dim.product(List.of(queries, first)), Dim.product(List.of(keys, second)))),
                Dim.product(List.of(count, inner)),
                "reshape");

        // (6·16 ⊕ 2·16) = (6 ⊕ 2)·16
        assertThat(count.atoms()).containsExactly(queries, keys);
        assertThat(count.resolve()).isInstanceOf(Dim.Sum.class);
        assertThat(first.resolve()).isSameAs(second.resolve()).isSameAs(inner.resolve());
    }

    @Test
    void equalPartsOfAnAxisBecomeOneVariable() throws MismatchException {
        Dim.Atom gate = atom(96);
        Dim.Atom up = atom(96);
        Dim.Atom two = atom(2);
        Dim.Atom channels = atom(96);
        unifier.unify(Dim.sum(List.of(gate, up)), Dim.product(List.of(two, channels)), "reshape");

        assertThat(gate.resolve()).isSameAs(up.resolve()).isSameAs(channels.resolve());
        assertThat(two.resolve()).isInstanceOf(Dim.Sum.class);
        assertThat(two.size(0)).isEqualTo(2);
    }

    @Test
    void partsThatAreNotMultiplesDoNotMatch() {
        assertThatThrownBy(() -> unifier.unify(
                        Dim.sum(List.of(atom(6), atom(10))), Dim.product(List.of(atom(4), atom(4))), "reshape"))
                .isInstanceOf(MismatchException.class);
    }

    @Test
    void pinsPassToBindingsAndParts() throws MismatchException {
        Dim.Atom axis = atom(32);
        axis.pin("vocabulary");
        Dim.Atom heads = atom(4);
        Dim.Atom size = atom(8);
        size.pin("rotated");
        unifier.unify(axis, Dim.product(List.of(heads, size)), "reshape");
        assertThat(heads.pin()).isEqualTo("vocabulary");
        assertThat(size.pin()).isEqualTo("rotated");

        Dim.Atom other = atom(12);
        other.pin("interface");
        unifier.unify(Dim.product(List.of(other, atom(5))), Dim.product(List.of(atom(4), atom(15))), "reshape");
        assertThat(other.resolve()).isInstanceOf(Dim.Product.class);
        assertThat(other.atoms()).allSatisfy(part -> assertThat(part.pin()).isEqualTo("interface"));
    }

    @Test
    void aPinStaysWithThePartThatHasIt() throws MismatchException {
        Dim.Atom first = atom(4);
        Dim.Atom second = atom(4);
        second.pin("constant");
        Dim.Atom axis = atom(8);
        unifier.unify(axis, Dim.sum(List.of(first, second)), "concat");

        assertThat(first.pin()).isNull();
    }

    @Test
    void unifyingTwiceChangesNothing() throws MismatchException {
        Dim.Atom axis = atom(24);
        Dim product = Dim.product(List.of(atom(4), atom(6)));
        unifier.unify(axis, product, "first");
        String before = text(axis);
        unifier.unify(axis, product, "second");
        unifier.unify(product, axis, "third");

        assertThat(text(axis)).isEqualTo(before);
    }

    @Test
    void cutsFollowTheStructure() throws MismatchException {
        Dim.Atom heads = atom(6);
        Dim.Atom size = atom(16);
        Dim fused = Dim.product(List.of(heads, size));
        List<Dim> parts = unifier.cutInto(fused, List.of(64L, 16L, 16L));

        assertThat(parts).extracting(part -> part.size(0)).containsExactly(64L, 16L, 16L);
        assertThat(parts).allSatisfy(part -> assertThat(part.atoms()).contains(size));
        assertThat(sizes(heads)).containsExactly(4L, 1L, 1L);
    }

    @Test
    void cutsInsideAFactorAreRejected() {
        Dim fused = Dim.product(List.of(atom(6), atom(16)));

        assertThatThrownBy(() -> unifier.cutInto(fused, List.of(40L, 56L))).isInstanceOf(MismatchException.class);
    }

    @Test
    void dynamicDimensionsAreNotCut() {
        assertThatThrownBy(() -> unifier.cutInto(unifier.atom(8, 12), List.of(4L, 4L)))
                .isInstanceOf(MismatchException.class);
    }

    @Test
    void keptIndicesOfAProductAreNested() throws MismatchException {
        Dim.Atom heads = atom(3);
        Dim.Atom size = atom(2);
        Dim.Atom axis = atom(6);
        unifier.unify(axis, Dim.product(List.of(heads, size)), "reshape");
        Map<Dim.Atom, int[]> kept = Map.of(heads, new int[] {0, 2});

        assertThat(axis.kept(kept::get)).containsExactly(0, 1, 4, 5);
        assertThat(axis.size(0, kept::get)).isEqualTo(4);
    }

    private Dim.Atom atom(long size) {
        return unifier.atom(size, size);
    }

    private static String text(Dim dim) {
        return dim.resolve().toString();
    }

    private static List<Long> sizes(Dim dim) {
        return dim.atoms().stream().map(atom -> atom.size(0)).toList();
    }
}
