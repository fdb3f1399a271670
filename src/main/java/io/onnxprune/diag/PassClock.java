// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import java.util.ArrayList;
import java.util.Collections;
import java.util.List;
import java.util.Locale;
import java.util.function.Supplier;

/** Measures how long passes take. */
public final class PassClock {
    private final Log log;
    private final List<PassTime> times = new ArrayList<>();
    private double inside;

    /**
     * How long a pass took.
     *
     * @param seconds without passes inside it
     */
    public record PassTime(String name, double seconds) {}

    public PassClock(Log log) {
        this.log = log;
    }

    /** The passes so far, in the order in which they ended. */
    public List<PassTime> times() {
        return Collections.unmodifiableList(times);
    }

    /** Runs a pass and notes the time that it took without passes inside it. */
    public <T> T timed(String pass, Supplier<T> work) {
        double insideBefore = inside;
        long start = System.nanoTime();
        T result = work.get();
        double whole = (System.nanoTime() - start) * 1e-9;
        double own = whole - (inside - insideBefore);
        inside = insideBefore + whole;
        times.add(new PassTime(pass, own));
        log.debug(String.format(Locale.ROOT, "%s: %.2f s", pass, own));
        return result;
    }
}
