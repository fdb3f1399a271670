// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import io.onnxprune.api.ProgressListener;
import java.io.PrintWriter;
import java.nio.file.Path;
import me.tongfei.progressbar.ProgressBar;
import me.tongfei.progressbar.ProgressBarBuilder;
import me.tongfei.progressbar.ProgressBarStyle;

/**
 * Prints results to standard output. Progress, warnings and details go to standard error. A progress bar appears when a
 * stage takes more than two seconds and standard error is a terminal.
 */
final class Console implements ProgressListener {
    private static final long QUIET_NANOS = 2_000_000_000L;

    /** The amount of output. */
    enum Level {
        QUIET,
        NORMAL,
        VERBOSE
    }

    private final PrintWriter out;
    private final PrintWriter err;
    private final Level level;
    private final boolean terminal;

    /**
     * Creates a console.
     *
     * @param terminal whether standard error is a terminal
     */
    Console(PrintWriter out, PrintWriter err, Level level, boolean terminal) {
        this.out = out;
        this.err = err;
        this.level = level;
        this.terminal = terminal && level != Level.QUIET;
    }

    /** Prints a line of the result. */
    void print(String line) {
        println(Visible.line(line));
    }

    /** Prints a table. */
    void print(Table table) {
        println(table.toString());
    }

    private void println(String text) {
        if (level != Level.QUIET) {
            out.println(text);
            out.flush();
        }
    }

    /** A path as users know it: from the working folder, if the file is below it. */
    static Path shown(Path file) {
        Path here = Path.of("").toAbsolutePath();
        return file.startsWith(here) ? here.relativize(file) : file;
    }

    @Override
    public void info(String message) {
        if (level != Level.QUIET) {
            err.println(Visible.line(message));
            err.flush();
        }
    }

    @Override
    public void warn(String message) {
        err.println("warning: " + Visible.line(message));
        err.flush();
    }

    @Override
    public void debug(String message) {
        if (level == Level.VERBOSE) {
            err.println(Visible.line(message));
            err.flush();
        }
    }

    @Override
    public Progress progress(String stage, long total) {
        return terminal ? new Bar(stage, total) : ProgressListener.NONE.progress(stage, total);
    }

    /** A progress bar that appears only when the stage takes long enough. */
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
