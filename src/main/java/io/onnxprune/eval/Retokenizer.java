// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.onnxprune.diag.UserException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.LongUnaryOperator;
import java.util.stream.LongStream;

/**
 * Writes rows of token ids in the tokens of another tokenizer that knows a part of the tokens. Special tokens keep their
 * places. The text between them is decoded and encoded again, by both tokenizers, so that both rows are of the same text.
 */
public final class Retokenizer implements AutoCloseable {
    private final TextTokenizer before;
    private final TextTokenizer after;
    private final LongUnaryOperator special;

    /**
     * A row in both tokenizers.
     *
     * @param before ids of the first tokenizer
     * @param after ids of the second tokenizer
     * @param bytesBefore bytes of text that {@code before} predicts: without those of a first token of text
     * @param bytesAfter bytes of text that {@code after} predicts
     */
    @SuppressWarnings("ArrayRecordComponent") // plain data, never compared
    public record Row(long[] before, long[] after, long bytesBefore, long bytesAfter) {}

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
     * @throws UserException when a tokenizer fails
     */
    public Row row(long[] ids) {
        LongStream.Builder rowBefore = LongStream.builder();
        LongStream.Builder rowAfter = LongStream.builder();
        List<String> texts = new ArrayList<>();
        for (int start = 0; start < ids.length; ) {
            long known = special.applyAsLong(ids[start]);
            if (known >= 0) {
                rowBefore.add(ids[start]);
                rowAfter.add(known);
                start++;
                continue;
            }
            int end = start;
            while (end < ids.length && special.applyAsLong(ids[end]) < 0) {
                end++;
            }
            String text = whole(before.decode(Arrays.copyOfRange(ids, start, end)));
            Arrays.stream(before.encodeAlone(text)).forEach(rowBefore::add);
            Arrays.stream(after.encodeAlone(text)).forEach(rowAfter::add);
            texts.add(text);
            start = end;
        }
        long bytes = texts.stream().mapToLong(Retokenizer::bytes).sum();
        long[] first = rowBefore.build().toArray();
        long[] second = rowAfter.build().toArray();
        boolean begins = ids.length > 0 && special.applyAsLong(ids[0]) >= 0;
        return new Row(
                first,
                second,
                begins || first.length == 0 ? bytes : bytes - bytes(before.decode(new long[] {first[0]})),
                begins || second.length == 0 ? bytes : bytes - bytes(after.decode(new long[] {second[0]})));
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
