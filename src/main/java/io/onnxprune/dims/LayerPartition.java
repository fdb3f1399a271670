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
 * once, in the order in which the slots first appear.
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
        List<Slot> order = slots.stream().distinct().toList();
        int[] layers = new int[slots.size()];
        for (int i = 1; i < layers.length; i++) {
            boolean later = order.indexOf(slots.get(i)) > order.indexOf(slots.get(i - 1));
            layers[i] = later ? layers[i - 1] : layers[i - 1] + 1;
        }
        return layers;
    }
}
