// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.ir.Program.Value;
import java.util.Collection;
import java.util.List;
import java.util.Set;

/**
 * A request for a forward run of a segment. Only nodes that its results need are run.
 *
 * @param segment the segment
 * @param taps sums that the segment contributes to
 * @param reference the activation that errors are measured against; null if no tap is of errors
 * @param yieldOutput whether the output of the segment is needed
 * @param yields the needed side values for later segments, among {@link Segment#yielded}
 * @param given stored values that are fed, beside the inputs of the segment
 * @param kept values to store beside the output
 * @param released stored values of earlier runs that are not needed after this one
 */
record SegmentRequest(
        Segment segment,
        Collection<Tap> taps,
        ReferenceActivation reference,
        boolean yieldOutput,
        Set<Value> yields,
        Set<Value> given,
        Set<Value> kept,
        Set<Value> released) {
    /** A request for sums only. */
    static SegmentRequest capture(Segment segment, Collection<Tap> taps, ReferenceActivation reference) {
        return new SegmentRequest(segment, taps, reference, false, Set.of(), Set.of(), Set.of(), Set.of());
    }

    /** A request for all values that later segments use. */
    static SegmentRequest advance(Segment segment) {
        return new SegmentRequest(segment, List.of(), null, true, segment.yielded(), Set.of(), Set.of(), Set.of());
    }

    SegmentRequest withTaps(Collection<Tap> changed) {
        return new SegmentRequest(segment, changed, reference, yieldOutput, yields, given, kept, released);
    }

    SegmentRequest withYields(Set<Value> changed) {
        return new SegmentRequest(segment, taps, reference, yieldOutput, changed, given, kept, released);
    }

    SegmentRequest withGiven(Set<Value> changed) {
        return new SegmentRequest(segment, taps, reference, yieldOutput, yields, changed, kept, released);
    }

    SegmentRequest withKept(Set<Value> changed) {
        return new SegmentRequest(segment, taps, reference, yieldOutput, yields, given, changed, released);
    }

    SegmentRequest withReleased(Set<Value> changed) {
        return new SegmentRequest(segment, taps, reference, yieldOutput, yields, given, kept, changed);
    }
}
