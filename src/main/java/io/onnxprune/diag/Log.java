// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

/** Where stages report what they do. The command line draws it; tests record it. */
public interface Log {
    /** A line of ordinary progress text. */
    void info(String message);

    /** Something asked for that was not done, or done differently, and why. Never suppressed. */
    void warn(String message);

    /** Detail for {@code --verbose}. */
    void debug(String message);

    /** Opens a progress display for {@code total} steps; shown only when it lasts and the output is a terminal. */
    Progress progress(String stage, long total);

    /** The same for what has been told before: lines of ordinary text become detail. */
    default Log quiet() {
        Log told = this;
        return new Log() {
            @Override
            public void info(String message) {
                told.debug(message);
            }

            @Override
            public void warn(String message) {
                told.warn(message);
            }

            @Override
            public void debug(String message) {
                told.debug(message);
            }

            @Override
            public Progress progress(String stage, long total) {
                return told.progress(stage, total);
            }
        };
    }

    /** A running progress display. */
    interface Progress extends AutoCloseable {
        void step(long steps);

        @Override
        void close();
    }

    /** Discards everything. */
    Log NONE = new Log() {
        @Override
        public void info(String message) {}

        @Override
        public void warn(String message) {}

        @Override
        public void debug(String message) {}

        @Override
        public Progress progress(String stage, long total) {
            return new Progress() {
                @Override
                public void step(long steps) {}

                @Override
                public void close() {}
            };
        }
    };
}
