// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static java.nio.charset.StandardCharsets.UTF_8;

import ai.djl.huggingface.tokenizers.Encoding;
import ai.djl.huggingface.tokenizers.HuggingFaceTokenizer;
import java.io.BufferedInputStream;
import java.io.BufferedOutputStream;
import java.io.DataInputStream;
import java.io.DataOutputStream;
import java.io.EOFException;
import java.io.FileDescriptor;
import java.io.FileInputStream;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;

/**
 * The native tokenizer, in a process of its own that {@link TextTokenizer} starts. The library ends its process on some
 * files and texts, and works without a time limit on others.
 *
 * <p>The process takes the path of a tokenizer.json and answers first whether it was loaded. It then reads requests, each
 * a kind and a content with its length: a text to encode, or ids to decode. The answer to a text is its ids, those of
 * special tokens marked; the answer to ids is their text. A failure is a text in place of an answer.
 */
final class NativeTokenizer {
    /** What the answer starts with. */
    static final int DONE = 0;

    static final int FAILED = 1;

    /** What a request starts with: a text with the special tokens of the tokenizer around it, a text alone, or ids. */
    static final int ENCODE = 0;

    static final int ENCODE_ALONE = 1;
    static final int DECODE = 2;

    private NativeTokenizer() {}

    /** Serves one parent process until it closes the input. */
    public static void main(String[] arguments) throws IOException {
        try (DataInputStream in = new DataInputStream(new BufferedInputStream(new FileInputStream(FileDescriptor.in)));
                DataOutputStream out =
                        new DataOutputStream(new BufferedOutputStream(new FileOutputStream(FileDescriptor.out)))) {
            serve(Path.of(arguments[0]), in, out);
        } catch (EOFException e) {
            // The parent has no more texts.
        }
    }

    private static void serve(Path file, DataInputStream in, DataOutputStream out) throws IOException {
        // Data is cut into windows later, so the tokenizer must neither truncate nor pad.
        Map<String, String> options =
                Map.of("truncation", "do_not_truncate", "padding", "do_not_pad", "addSpecialTokens", "true");
        HuggingFaceTokenizer tokenizer;
        try (InputStream content = Files.newInputStream(file)) {
            tokenizer = HuggingFaceTokenizer.newInstance(content, options);
        } catch (IOException | RuntimeException | LinkageError e) {
            fail(out, e);
            return;
        }
        out.writeInt(DONE);
        out.flush();
        while (true) {
            int kind = in.readInt();
            byte[] content = in.readNBytes(in.readInt());
            try {
                if (kind == DECODE) {
                    long[] ids = new long[content.length / Long.BYTES];
                    ByteBuffer.wrap(content).asLongBuffer().get(ids);
                    out.writeInt(DONE);
                    write(out, tokenizer.decode(ids, false));
                } else {
                    answer(out, tokenizer.encode(new String(content, UTF_8), kind == ENCODE, false));
                }
            } catch (RuntimeException | OutOfMemoryError e) {
                fail(out, e);
            }
        }
    }

    private static void answer(DataOutputStream out, Encoding encoding) throws IOException {
        long[] ids = encoding.getIds();
        long[] special = encoding.getSpecialTokenMask();
        out.writeInt(DONE);
        out.writeInt(ids.length);
        for (int i = 0; i < ids.length; i++) {
            out.writeLong(ids[i]);
            out.writeBoolean(special[i] != 0);
        }
        out.flush();
    }

    private static void fail(DataOutputStream out, Throwable failure) throws IOException {
        out.writeInt(FAILED);
        String reason = String.valueOf(failure.getMessage())
                .lines()
                .findFirst()
                .orElse(failure.getClass().getSimpleName());
        write(out, reason);
    }

    private static void write(DataOutputStream out, String text) throws IOException {
        byte[] bytes = text.getBytes(UTF_8);
        out.writeInt(bytes.length);
        out.write(bytes);
        out.flush();
    }
}
