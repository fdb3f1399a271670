// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Values that a tap needs in a later segment than the one that computes them, with the number of their remaining uses.
 */
final class LiveValues {
    private final Map<Segment, Set<Value>> kept = new HashMap<>();
    private final Map<Segment, Set<Value>> needed = new HashMap<>();
    private final Map<Value, Integer> remainingUses = new HashMap<>();
    private final List<Set<Value>> alive = new ArrayList<>();

    private LiveValues() {}

    /**
     * Finds the values that {@code taps} need.
     *
     * @throws IllegalArgumentException when a value of a similarity is computed after the one that it is compared
     *     with
     */
    static LiveValues of(List<Segment> segments, Collection<Tap> taps) {
        LiveValues liveValues = new LiveValues();
        segments.forEach(segment -> liveValues.alive.add(new LinkedHashSet<>()));
        for (Tap tap : taps) {
            if (tap instanceof Tap.Similarity similarity) {
                for (int index = 0; index < segments.size(); index++) {
                    if (SegmentGraph.concerns(segments.get(index), tap)) {
                        liveValues.require(similarity.from().value(), segments, index);
                    }
                }
            }
        }
        return liveValues;
    }

    private void require(String name, List<Segment> segments, int user) {
        Segment last = segments.get(user);
        if (last.findOrInput(name) != null) {
            return;
        }
        int origin = user - 1;
        while (origin >= 0 && segments.get(origin).find(name) == null) {
            origin--;
        }
        if (origin < 0) {
            throw new IllegalArgumentException("\"" + name + "\" is not computed before what it is compared with");
        }
        Value value = segments.get(origin).find(name);
        kept.computeIfAbsent(segments.get(origin), key -> new LinkedHashSet<>()).add(value);
        if (needed.computeIfAbsent(last, key -> new LinkedHashSet<>()).add(value)) {
            remainingUses.merge(value, 1, Integer::sum);
        }
        alive.subList(origin, user).forEach(values -> values.add(value));
    }

    /** The values of a segment that later ones need. */
    Set<Value> kept(Segment segment) {
        return kept.getOrDefault(segment, Set.of());
    }

    /** The values of earlier segments that a segment needs. */
    Set<Value> needed(Segment segment) {
        return needed.getOrDefault(segment, Set.of());
    }

    /** The values that no segment after this one needs. It must be called once, when the segment is done. */
    Set<Value> release(Segment segment) {
        Set<Value> done = new LinkedHashSet<>();
        for (Value value : needed(segment)) {
            if (remainingUses.merge(value, -1, Integer::sum) == 0) {
                done.add(value);
            }
        }
        return done;
    }

    /** The maximal bytes that are stored at once for {@code samples} rows of {@code length} tokens. */
    long bytes(Footprint footprint, int samples, int length) {
        double most = 0;
        for (Set<Value> values : alive) {
            double bytes = 0;
            for (Value value : values) {
                bytes += footprint.bytes(value, samples, length);
            }
            most = Math.max(most, bytes);
        }
        return (long) most;
    }
}
