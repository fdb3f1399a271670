// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.fuzz;

import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.regex.Pattern;

/**
 * A reader of files and an intact file for it. The reader is given damaged copies of the file. It must read each or
 * refuse it by a {@link UserException} of one sentence, within some seconds.
 *
 * @param name of the reader
 * @param file where the damaged copies are put
 * @param intact content of an intact file
 * @param head the number of its first bytes that are damaged; the others are weights, which no reader looks into
 */
@SuppressWarnings("ArrayRecordComponent") // plain data of tests
record FuzzTarget(String name, Path file, byte[] intact, int head, Reader reader) {
    private static final Duration LONGEST = Duration.ofSeconds(60);
    private static final int MOST_FAILURES = 20;

    /** A value that a message lacks. Parsers name the token in quotes. */
    private static final Pattern NULL = Pattern.compile("(?<!['\\w])null(?!['\\w])");

    /** Reads a file. */
    interface Reader {
        void read(Path file) throws IOException;
    }

    /**
     * What became of the damaged copies.
     *
     * @param failures what no reader may do, each with the seed that repeats it
     */
    record Outcome(long read, long refused, double slowestSeconds, List<String> failures) {
        @Override
        public String toString() {
            return "%,d read, %,d refused, %d failures, slowest %.2f s"
                    .formatted(read, refused, failures.size(), slowestSeconds);
        }
    }

    /** A target with a file of its own in {@code folder}. */
    static FuzzTarget of(String name, Path folder, String fileName, byte[] intact, Reader reader) {
        return new FuzzTarget(name, folder.resolve(fileName), intact, intact.length, reader);
    }

    FuzzTarget withHead(int bytes) {
        return new FuzzTarget(name, file, intact, Math.min(bytes, intact.length), reader);
    }

    private byte[] damaged(long seed) {
        byte[] damaged = new Mutator(seed).damaged(Arrays.copyOf(intact, head));
        byte[] whole = Arrays.copyOf(damaged, damaged.length + intact.length - head);
        System.arraycopy(intact, head, whole, damaged.length, intact.length - head);
        return whole;
    }

    /**
     * Reads damaged copies for some time. The copy that is read stands in {@link #file}, also after the end of the process.
     *
     * @param seed of the first copy; each copy has its own, which follow
     */
    Outcome run(long seed, Duration time) throws IOException {
        long read = 0;
        long refused = 0;
        long slowest = 0;
        List<String> failures = new ArrayList<>();
        long end = System.nanoTime() + time.toNanos();
        ExecutorService worker = Executors.newSingleThreadExecutor(task -> {
            Thread thread = new Thread(task, name);
            thread.setDaemon(true);
            return thread;
        });
        Files.write(file, intact);
        reader.read(file);
        for (long at = seed; System.nanoTime() < end && failures.size() < MOST_FAILURES; at++) {
            byte[] damaged = damaged(at);
            Files.write(file, damaged);
            long start = System.nanoTime();
            String failure = null;
            try {
                worker.submit(() -> {
                            reader.read(file);
                            return null;
                        })
                        .get(LONGEST.toSeconds(), TimeUnit.SECONDS);
                read++;
            } catch (TimeoutException e) {
                failures.add(name + " seed " + at + ": takes longer than " + LONGEST.toSeconds() + " s");
                break;
            } catch (ExecutionException e) {
                failure = e.getCause() instanceof UserException refusal ? wrong(refusal, damaged) : trace(e.getCause());
                refused++;
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
                break;
            }
            slowest = Math.max(slowest, System.nanoTime() - start);
            if (failure != null) {
                failures.add(name + " seed " + at + ": " + failure);
            }
        }
        worker.shutdownNow();
        return new Outcome(read, refused, slowest / 1e9, failures);
    }

    /** What is wrong with a message; null when nothing is. */
    private static String wrong(UserException refusal, byte[] damaged) {
        String message = refusal.getMessage();
        boolean quoted = new String(damaged, StandardCharsets.ISO_8859_1).contains("null");
        boolean sentence = !message.isBlank() && !message.contains("\n");
        return sentence && (quoted || !NULL.matcher(message).find()) ? null : "the message is no sentence: " + message;
    }

    private static String trace(Throwable failure) {
        StackTraceElement[] frames = failure.getStackTrace();
        StringBuilder text = new StringBuilder(failure.toString());
        for (int i = 0; i < Math.min(6, frames.length); i++) {
            text.append("\n    at ").append(frames[i]);
        }
        return text.toString();
    }
}
