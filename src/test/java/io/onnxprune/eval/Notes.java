package io.onnxprune.eval;

import io.onnxprune.diag.Log;
import java.util.ArrayList;
import java.util.List;

/** Keeps what is said. */
final class Notes implements Log {
    final List<String> lines = new ArrayList<>();
    long steps;

    @Override
    public void info(String message) {
        lines.add("info: " + message);
    }

    @Override
    public void warn(String message) {
        lines.add("warning: " + message);
    }

    @Override
    public void debug(String message) {}

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
}
