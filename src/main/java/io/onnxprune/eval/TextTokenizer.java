// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.onnxprune.diag.CacheFolder;
import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.UserException;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.lang.ProcessBuilder.Redirect;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.OptionalLong;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/**
 * Encodes text into token ids with a {@code tokenizer.json}, without network access. The native library runs in a
 * process of its own ({@link NativeTokenizer}): where it ends or hangs, this is one sentence here.
 */
final class TextTokenizer implements AutoCloseable {
    private static final String REMEDY = "give the tokenizer.json that the model was exported with";
    private static final Duration LOADING = Duration.ofMinutes(2);
    /** A text may take this long, and longer when it is long: tokenizers take over 100 kB in a second. */
    private static final Duration ENCODING = Duration.ofSeconds(30);

    private static final int BYTES_PER_SECOND = 20_000;

    private final Path file;
    private final Duration patience;
    private final Path errors;
    private final Process process;
    private final DataOutputStream request;
    private final DataInputStream response;

    /** The ids of a text, and which of them are special tokens. */
    @SuppressWarnings("ArrayRecordComponent") // plain data, never compared
    private record Encoded(long[] ids, boolean[] special) {}

    /**
     * Loads a tokenizer.
     *
     * @throws UserException when the file does not exist or is not a tokenizer
     */
    TextTokenizer(Path file) {
        this(file, ENCODING);
    }

    /**
     * Loads a tokenizer.
     *
     * @param patience the time that a short text may take
     * @throws UserException when the file does not exist or is not a tokenizer
     */
    TextTokenizer(Path file, Duration patience) {
        if (!Files.isRegularFile(file)) {
            throw new UserException("the tokenizer " + file + " does not exist; " + REMEDY);
        }
        TokenizerLimits.check(file);
        this.file = file;
        this.patience = patience;
        try {
            this.errors = Files.createTempFile("onnx-prune-tokenizer", ".log");
            this.process = new ProcessBuilder(command(file))
                    .redirectError(Redirect.to(errors.toFile()))
                    .start();
        } catch (IOException e) {
            throw new UserException(
                    "the tokenizer runs in a process of its own, which cannot be started: " + FileFailure.reason(e), e);
        }
        this.request = new DataOutputStream(new BufferedOutputStream(process.getOutputStream()));
        this.response = new DataInputStream(new BufferedInputStream(process.getInputStream()));
        try {
            within(LOADING, "be loaded", () -> {
                if (response.readInt() != NativeTokenizer.DONE) {
                    throw new UserException(
                            "the tokenizer %s cannot be read (%s); %s".formatted(file, readText(), REMEDY));
                }
                return null;
            });
        } catch (UserException e) {
            close();
            throw e;
        }
    }

    private static List<String> command(Path file) {
        Map<String, String> settings = new LinkedHashMap<>();
        // In offline mode the library loads its native part from the jar, also beside a GPU, and connects to no server.
        settings.put("ai.djl.offline", "true");
        settings.put("OPT_OUT_TRACKING", "true");
        settings.put("DJL_CACHE_DIR", CacheFolder.folder("tokenizers").toString());
        settings.replaceAll(System::getProperty);
        List<String> command = new ArrayList<>(List.of(
                java(),
                "-XX:+UseSerialGC",
                "-XX:TieredStopAtLevel=1",
                "-XX:+SuppressFatalErrorMessage",
                "-XX:+DisplayVMOutputToStderr",
                "-Xmx" + Runtime.getRuntime().maxMemory(),
                "-cp",
                System.getProperty("java.class.path")));
        settings.forEach((key, value) -> command.add("-D" + key + '=' + value));
        command.add(NativeTokenizer.class.getName());
        command.add(file.toAbsolutePath().toString());
        return command;
    }

    private static String java() {
        Path java = Path.of(System.getProperty("java.home"), "bin", "java");
        return Files.isExecutable(java)
                ? java.toString()
                : ProcessHandle.current().info().command().orElse("java");
    }

    private interface Exchange<T> {
        T run() throws IOException;
    }

    /** Does something with the process, which is ended when it takes too long. */
    private <T> T within(Duration limit, String what, Exchange<T> exchange) {
        CompletableFuture<Void> late = new CompletableFuture<>();
        CompletableFuture<Void> ended = late.completeOnTimeout(null, limit.toMillis(), TimeUnit.MILLISECONDS)
                .thenRun(() -> process.destroyForcibly());
        try {
            return exchange.run();
        } catch (IOException e) {
            throw new UserException(
                    late.isDone()
                            ? "the tokenizer %s took more than %d seconds to %s; %s, or shorter text"
                                    .formatted(file, limit.toSeconds(), what, REMEDY)
                            : "the tokenizer %s cannot %s: its native library ended (%s); %s"
                                    .formatted(file, what, lastWords(), REMEDY),
                    e);
        } finally {
            ended.cancel(false);
            late.cancel(false);
        }
    }

    /** What the native library wrote before it ended. */
    private String lastWords() {
        try {
            process.waitFor(5, TimeUnit.SECONDS);
            return Files.readAllLines(errors, UTF_8).stream()
                    .filter(line -> !line.isBlank() && !line.contains("panicked at") && !line.startsWith("Picked up"))
                    .findFirst()
                    .orElseGet(() -> process.isAlive() ? "it does not answer" : "exit code " + process.exitValue());
        } catch (IOException e) {
            return FileFailure.reason(e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            return "interrupted";
        }
    }

    private String readText() throws IOException {
        return new String(response.readNBytes(response.readInt()), UTF_8);
    }

    private Encoded run(int kind, String text) {
        return request(kind, text.getBytes(UTF_8), "encode text", () -> {
            long[] ids = new long[response.readInt()];
            boolean[] special = new boolean[ids.length];
            for (int i = 0; i < ids.length; i++) {
                ids[i] = response.readLong();
                special[i] = response.readBoolean();
            }
            return new Encoded(ids, special);
        });
    }

    private <T> T request(int kind, byte[] content, String what, Exchange<T> answer) {
        Duration limit = patience.plusSeconds(content.length / BYTES_PER_SECOND);
        return within(limit, what, () -> {
            request.writeInt(kind);
            request.writeInt(content.length);
            request.write(content);
            request.flush();
            if (response.readInt() != NativeTokenizer.DONE) {
                throw new UserException(
                        "the tokenizer %s cannot %s (%s); %s".formatted(file, what, readText(), REMEDY));
            }
            return answer.run();
        });
    }

    /**
     * The ids of a text, with the special tokens that the tokenizer puts in front (BOS) and without those that it
     * appends.
     *
     * @throws UserException when the tokenizer cannot encode it, or takes too long
     */
    long[] encode(String text) {
        Encoded encoded = run(NativeTokenizer.ENCODE, text);
        int end = encoded.ids.length;
        while (end > 0 && encoded.special[end - 1]) {
            end--;
        }
        return Arrays.copyOf(encoded.ids, end);
    }

    /** The ids of a text alone, without special tokens around it. */
    long[] encodeAlone(String text) {
        return run(NativeTokenizer.ENCODE_ALONE, text).ids;
    }

    /** The text of ids, special tokens included. */
    String decode(long[] ids) {
        ByteBuffer content = ByteBuffer.allocate(ids.length * Long.BYTES);
        content.asLongBuffer().put(ids);
        return request(NativeTokenizer.DECODE, content.array(), "decode ids", this::readText);
    }

    /** The special token that the tokenizer puts in front (BOS); empty when there is none. */
    OptionalLong beginning() {
        Encoded encoded = run(NativeTokenizer.ENCODE, "a");
        return encoded.ids.length > 1 && encoded.special[0] ? OptionalLong.of(encoded.ids[0]) : OptionalLong.empty();
    }

    @Override
    public void close() {
        process.destroyForcibly();
        try {
            Files.deleteIfExists(errors);
        } catch (IOException e) {
            errors.toFile().deleteOnExit();
        }
    }
}
