// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.ir.Program.Value;
import java.util.Collection;
import java.util.List;
import java.util.Set;

/**
 * What a forward run of a segment takes and makes; nothing is computed that it does not need.
 *
 * @param taps sums that the segment has a share in
 * @param counterpart what errors are measured against; null if no tap is of errors
 * @param handOn whether the segment's output is wanted
 * @param yields the values that later segments read beside the stream and that are wanted, among {@link Segment#yielded}
 * @param given values that are fed as they were kept, beside what the segment reads anyway
 * @param kept values to keep beside the output
 * @param released what is kept of earlier runs and not needed after this one
 */
record SegmentRequest(
        Segment segment,
        Collection<Tap> taps,
        ReferenceActivation counterpart,
        boolean handOn,
        Set<Value> yields,
        Set<Value> given,
        Set<Value> kept,
        Set<Value> released) {
    /** A run for sums alone. */
    static SegmentRequest capture(Segment segment, Collection<Tap> taps, ReferenceActivation counterpart) {
        return new SegmentRequest(segment, taps, counterpart, false, Set.of(), Set.of(), Set.of(), Set.of());
    }

    /** A run for all that later segments read. */
    static SegmentRequest advance(Segment segment) {
        return new SegmentRequest(segment, List.of(), null, true, segment.yielded(), Set.of(), Set.of(), Set.of());
    }

    SegmentRequest withTaps(Collection<Tap> others) {
        return new SegmentRequest(segment, others, counterpart, handOn, yields, given, kept, released);
    }

    SegmentRequest withYields(Set<Value> others) {
        return new SegmentRequest(segment, taps, counterpart, handOn, others, given, kept, released);
    }

    SegmentRequest withGiven(Set<Value> others) {
        return new SegmentRequest(segment, taps, counterpart, handOn, yields, others, kept, released);
    }

    SegmentRequest withKept(Set<Value> others) {
        return new SegmentRequest(segment, taps, counterpart, handOn, yields, given, others, released);
    }

    SegmentRequest withReleased(Set<Value> others) {
        return new SegmentRequest(segment, taps, counterpart, handOn, yields, given, kept, others);
    }
}
