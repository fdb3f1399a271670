// SPDX-License-Identifier: Apache-2.0
package io.onnxprune;

import io.onnxprune.diag.Log;
import java.util.ArrayList;
import java.util.List;

/** Keeps what is said. */
public class RecordedLog implements Log {
    private final List<String> lines = new ArrayList<>();
    private final List<String> warnings = new ArrayList<>();
    private final List<String> details = new ArrayList<>();
    private long steps;

    @Override
    public void info(String message) {
        lines.add("info: " + message);
    }

    @Override
    public void warn(String message) {
        lines.add("warning: " + message);
        warnings.add(message);
    }

    @Override
    public void debug(String message) {
        details.add(message);
    }

    @Override
    public Progress progress(String stage, long total) {
        return new Progress() {
            @Override
            public void step(long count) {
                steps += count;
            }

            @Override
            public void close() {}
        };
    }

    /** Everything but details, in order: {@code info: ...} or {@code warning: ...}. */
    public List<String> lines() {
        return lines;
    }

    /** The texts of details, in order. */
    public List<String> details() {
        return details;
    }

    /** The texts of warnings, in order. */
    public List<String> warnings() {
        return warnings;
    }

    /** Steps of all progress displays. */
    public long steps() {
        return steps;
    }
}
