// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

/** Receives the progress reports of all stages. The command line prints them; tests record them. */
public interface Log {
    /** Reports a line of ordinary progress text. */
    void info(String message);

    /**
     * Warns that something requested was not done, or was done differently, and says why. Warnings are never
     * suppressed.
     */
    void warn(String message);

    /** Reports a detail that is shown with {@code --verbose}. */
    void debug(String message);

    /**
     * Opens a progress display for {@code total} steps. It is shown only when the stage takes long and the output is a
     * terminal.
     */
    Progress progress(String stage, long total);

    /** This log with lines of ordinary text as details: for work that repeats what was told before. */
    default Log quiet() {
        return new Forwarding(this) {
            @Override
            public void info(String message) {
                debug(message);
            }
        };
    }

    /** Hands everything on to another log. */
    class Forwarding implements Log {
        private final Log target;

        protected Forwarding(Log target) {
            this.target = target;
        }

        @Override
        public void info(String message) {
            target.info(message);
        }

        @Override
        public void warn(String message) {
            target.warn(message);
        }

        @Override
        public void debug(String message) {
            target.debug(message);
        }

        @Override
        public Progress progress(String stage, long total) {
            return target.progress(stage, total);
        }
    }

    /** An open progress display. */
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
