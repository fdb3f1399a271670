// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.runtime.RuntimeTensor;

/** Receives complete sums in the memory that sessions work in, and releases them. */
interface SumSink {
    void accept(Tap tap, RuntimeTensor sum);

    /** Copies sums to this process's memory for {@code sink}. */
    static SumSink of(TapSink sink) {
        return (tap, sum) -> sink.accept(tap, sum.moveToHost());
    }
}
