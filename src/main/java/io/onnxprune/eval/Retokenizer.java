// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.onnxprune.diag.UserException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.function.LongUnaryOperator;
import java.util.stream.LongStream;

/**
 * Writes rows of token ids in the tokens of another tokenizer that knows a part of the tokens. Special tokens keep their
 * places. The text between them is decoded and encoded again.
 */
public final class Retokenizer implements AutoCloseable {
    private final TextTokenizer before;
    private final TextTokenizer after;
    private final LongUnaryOperator special;

    /**
     * A row in the second tokenizer.
     *
     * @param ids its ids
     * @param bytesBefore bytes of text that the row predicts in the first tokenizer: without those of a first token of text
     * @param bytesAfter bytes of text that it predicts in the second one
     */
    @SuppressWarnings("ArrayRecordComponent") // plain data, never compared
    public record Row(long[] ids, long bytesBefore, long bytesAfter) {}

    /**
     * Opens both tokenizers.
     *
     * @param special the id of a special token in the second tokenizer, by its id in the first; -1 for other tokens
     * @throws UserException when a tokenizer cannot be read
     */
    public Retokenizer(Path before, Path after, LongUnaryOperator special) {
        this.special = special;
        this.before = new TextTokenizer(before);
        try {
            this.after = new TextTokenizer(after);
        } catch (UserException e) {
            this.before.close();
            throw e;
        }
    }

    /**
     * Encodes a row of the first tokenizer again. Characters that its ends cut through are left out.
     *
     * @param limit most tokens of the new row, which ends there
     * @throws UserException when a tokenizer fails
     */
    public Row row(long[] ids, int limit) {
        LongStream.Builder row = LongStream.builder();
        StringBuilder texts = new StringBuilder();
        for (int start = 0; start < ids.length; ) {
            long known = special.applyAsLong(ids[start]);
            if (known >= 0) {
                row.add(known);
                start++;
                continue;
            }
            int end = start;
            while (end < ids.length && special.applyAsLong(ids[end]) < 0) {
                end++;
            }
            String text = whole(before.decode(Arrays.copyOfRange(ids, start, end)));
            Arrays.stream(after.encodeAlone(text)).forEach(row::add);
            texts.append(text);
            start = end;
        }
        long[] whole = row.build().toArray();
        long[] cut = Arrays.copyOf(whole, Math.min(limit, whole.length));
        long bytes = bytes(texts.toString());
        long beyond = bytes(after, Arrays.copyOfRange(whole, cut.length, whole.length));
        boolean begins = ids.length > 0 && special.applyAsLong(ids[0]) >= 0;
        return new Row(
                cut,
                bytes - (begins ? 0 : bytes(before, Arrays.copyOf(ids, 1))),
                bytes - beyond - (begins ? 0 : bytes(after, Arrays.copyOf(cut, 1))));
    }

    private static long bytes(TextTokenizer tokenizer, long[] ids) {
        return ids.length == 0 ? 0 : bytes(tokenizer.decode(ids));
    }

    private static long bytes(String text) {
        return text.getBytes(UTF_8).length;
    }

    /** A text without the replacement characters of a character that was cut at its ends. */
    private static String whole(String text) {
        int start = 0;
        int end = text.length();
        while (start < end && text.charAt(start) == '\uFFFD') {
            start++;
        }
        while (end > start && text.charAt(end - 1) == '\uFFFD') {
            end--;
        }
        return text.substring(start, end);
    }

    @Override
    public void close() {
        before.close();
        after.close();
    }
}
