// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compiler;

import io.onnxprune.compiler.PruneReport.PassTime;
import io.onnxprune.diag.Log;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Supplier;

/** Notes how long passes take. */
final class PassClock {
    private final Log log;
    private final List<PassTime> times = new ArrayList<>();
    private double inside;

    PassClock(Log log) {
        this.log = log;
    }

    /** The passes so far, in the order in which they ended. */
    List<PassTime> times() {
        return times;
    }

    /** Runs a pass and notes the time that it took without passes inside it. */
    <T> T timed(String pass, Supplier<T> work) {
        double insideBefore = inside;
        long start = System.nanoTime();
        T result = work.get();
        double whole = (System.nanoTime() - start) * 1e-9;
        double own = whole - (inside - insideBefore);
        inside = insideBefore + whole;
        times.add(new PassTime(pass, own));
        log.debug(String.format("%s: %.2f s", pass, own));
        return result;
    }
}
