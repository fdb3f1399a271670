// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.api.ProgressListener;
import java.io.PrintWriter;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;

/**
 * Shows what stages report. Results go to standard output; progress, warnings and details go to standard error. A
 * progress bar appears when a stage lasts over two seconds and standard error is a terminal.
 */
final class Console implements ProgressListener {
    private static final long QUIET_NANOS = 2_000_000_000L;

    /** How much is shown. */
    enum Level {
        QUIET,
        NORMAL,
        VERBOSE
    }

    private final PrintWriter out;
    private final PrintWriter err;
    private final Level level;
    private final boolean terminal;

    /** @param terminal whether standard error is one that a person watches */
    Console(PrintWriter out, PrintWriter err, Level level, boolean terminal) {
        this.out = out;
        this.err = err;
        this.level = level;
        this.terminal = terminal && level != Level.QUIET;
    }

    /** A line of the result. */
    void print(String line) {
        if (level != Level.QUIET) {
            out.println(line);
            out.flush();
        }
    }

    @Override
    public void info(String message) {
        if (level != Level.QUIET) {
            err.println(message);
            err.flush();
        }
    }

    @Override
    public void warn(String message) {
        err.println("warning: " + message);
        err.flush();
    }

    @Override
    public void debug(String message) {
        if (level == Level.VERBOSE) {
            err.println(message);
            err.flush();
        }
    }

    @Override
    public Progress progress(String stage, long total) {
        return terminal ? new Bar(stage, total) : ProgressListener.NONE.progress(stage, total);
    }

    /** A bar that is drawn only once the stage has lasted a while. */
    private static final class Bar implements Progress {
        private final String stage;
        private final long total;
        private final long started = System.nanoTime();
        private ProgressBar bar;
        private long done;

        Bar(String stage, long total) {
            this.stage = stage;
            this.total = total;
        }

        @Override
        public synchronized void step(long steps) {
            done += steps;
            if (bar == null && System.nanoTime() - started > QUIET_NANOS) {
                bar = new ProgressBarBuilder()
                        .setTaskName(stage)
                        .setInitialMax(total)
                        .setStyle(ProgressBarStyle.ASCII)
                        .build();
            }
            if (bar != null) {
                bar.stepTo(done);
            }
        }

        @Override
        public synchronized void close() {
            if (bar != null) {
                bar.close();
            }
        }
    }
}
