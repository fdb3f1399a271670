// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dim;
import java.util.Arrays;

/** Maps indices along an axis to units of an atom. */
final class UnitIndex {
    private UnitIndex() {}

    /**
     * The unit of {@code atom} for each of the {@code extent} indices along {@code dim}; -1 where the axis does not
     * carry the atom (another part of a sum).
     */
    static int[] ofIndices(Dim dim, Dim.Atom atom, int extent) {
        // For each binary digit of the unit, this finds the indices that are kept when only units with this digit are
        // kept. So it takes a few passes over the axis, no matter how its products and sums are nested.
        int units = Math.toIntExact(atom.size(0));
        int[] unit = new int[extent];
        for (int bit = 0; 1 << bit < units; bit++) {
            for (int index : dim.kept(only(atom, unitsWithBit(units, bit)))) {
                unit[index] |= 1 << bit;
            }
        }
        for (int index : dim.kept(only(atom, new int[0]))) {
            unit[index] = -1;
        }
        return unit;
    }

    private static int[] unitsWithBit(int units, int bit) {
        int[] found = new int[units];
        int count = 0;
        for (int unit = 0; unit < units; unit++) {
            if ((unit >> bit & 1) != 0) {
                found[count++] = unit;
            }
        }
        return Arrays.copyOf(found, count);
    }

    private static Dim.Keep only(Dim.Atom atom, int[] kept) {
        return other -> other == atom ? kept : null;
    }
}
