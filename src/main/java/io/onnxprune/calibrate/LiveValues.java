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

/** Values that a tap needs in a later segment than the one that computes them, and how often each is still needed. */
final class LiveValues {
    private final Map<Segment, Set<Value>> kept = new HashMap<>();
    private final Map<Segment, Set<Value>> needed = new HashMap<>();
    private final Map<Value, Integer> readers = new HashMap<>();
    private final List<Set<Value>> alive = new ArrayList<>();

    private LiveValues() {}

    /**
     * What these taps need.
     *
     * @throws IllegalArgumentException when a value that is compared comes later than the one it is compared with
     */
    static LiveValues of(List<Segment> segments, Collection<Tap> taps) {
        LiveValues held = new LiveValues();
        segments.forEach(segment -> held.alive.add(new LinkedHashSet<>()));
        for (Tap tap : taps) {
            if (tap instanceof Tap.Similarity similarity) {
                for (int index = 0; index < segments.size(); index++) {
                    if (SegmentGraph.concerns(segments.get(index), tap)) {
                        held.bring(similarity.from().value(), segments, index);
                    }
                }
            }
        }
        return held;
    }

    private void bring(String name, List<Segment> segments, int reader) {
        Segment last = segments.get(reader);
        if (last.reach(name) != null) {
            return;
        }
        int origin = reader - 1;
        while (origin >= 0 && segments.get(origin).find(name) == null) {
            origin--;
        }
        if (origin < 0) {
            throw new IllegalArgumentException("\"" + name + "\" is not computed before what it is compared with");
        }
        Value value = segments.get(origin).find(name);
        kept.computeIfAbsent(segments.get(origin), key -> new LinkedHashSet<>()).add(value);
        if (needed.computeIfAbsent(last, key -> new LinkedHashSet<>()).add(value)) {
            readers.merge(value, 1, Integer::sum);
        }
        alive.subList(origin, reader).forEach(values -> values.add(value));
    }

    /** What a segment computes that later ones need. */
    Set<Value> kept(Segment segment) {
        return kept.getOrDefault(segment, Set.of());
    }

    /** What a segment needs of what earlier ones compute. */
    Set<Value> needed(Segment segment) {
        return needed.getOrDefault(segment, Set.of());
    }

    /** The values that a segment needed for the last time; called once when it is done. */
    Set<Value> release(Segment segment) {
        Set<Value> done = new LinkedHashSet<>();
        for (Value value : needed(segment)) {
            if (readers.merge(value, -1, Integer::sum) == 0) {
                done.add(value);
            }
        }
        return done;
    }

    /** Bytes of what is held at once for {@code samples} rows of {@code length} tokens. */
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
