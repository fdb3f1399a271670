// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.dims.BlockKind.Slot;
import java.util.EnumSet;
import java.util.List;
import java.util.Set;

/**
 * Groups consecutive residual blocks into layers. Layers are what repeats: the shortest sequence of slots of which the
 * model is a repetition. Blocks of different kinds that take turns, such as attention and convolution, are of one
 * slot. Without a repetition, as in a model of one layer or one that lost single blocks, a layer has each slot at most
 * once.
 */
final class LayerPartition {
    private LayerPartition() {}

    /** The index of the layer of each block, for blocks in program order. */
    static int[] of(List<BlockKind> kinds) {
        List<Slot> slots = kinds.stream().map(BlockKind::slot).toList();
        int period = period(slots, false);
        if (period == 0) {
            period = period(slots, true);
        }
        return period == 0 ? distinct(slots) : repeated(slots.size(), period);
    }

    /** The shortest period that repeats at least once; 0 when there is none. */
    private static int period(List<Slot> slots, boolean lenient) {
        for (int period = 1; period <= slots.size() / 2; period++) {
            if (slots.size() % period == 0 && isPeriod(slots, period, lenient)) {
                return period;
            }
        }
        return 0;
    }

    /** Whether all blocks at equal places are of one slot; if lenient, one whose slot is unknown may be at any place. */
    private static boolean isPeriod(List<Slot> slots, int period, boolean lenient) {
        for (int place = 0; place < period; place++) {
            Set<Slot> found = EnumSet.noneOf(Slot.class);
            for (int i = place; i < slots.size(); i += period) {
                found.add(slots.get(i));
            }
            if (lenient) {
                found.remove(Slot.ANY);
            }
            if (found.size() > 1) {
                return false;
            }
        }
        return true;
    }

    private static int[] repeated(int count, int period) {
        int[] layers = new int[count];
        for (int i = 0; i < count; i++) {
            layers[i] = i / period;
        }
        return layers;
    }

    private static int[] distinct(List<Slot> slots) {
        int[] layers = new int[slots.size()];
        Set<Slot> seen = EnumSet.noneOf(Slot.class);
        int layer = 0;
        for (int i = 0; i < slots.size(); i++) {
            if (!seen.add(slots.get(i))) {
                layer++;
                seen.clear();
                seen.add(slots.get(i));
            }
            layers[i] = layer;
        }
        return layers;
    }
}
