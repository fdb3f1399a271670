// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.fuzz;

import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.List;
import java.util.Random;

/** Damages the bytes of a file, the same way each time for one seed: what a transfer, an editor or an attacker does. */
final class Mutator {
    private static final long[] NUMBERS = {
        0, 1, -1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, Integer.MAX_VALUE, Integer.MIN_VALUE, Long.MAX_VALUE, Long.MIN_VALUE
    };
    private static final List<String> TEXTS = List.of(
            "-1",
            "0",
            "99999999999999999999999999",
            "1e999999999",
            "NaN",
            "null",
            "true",
            "\"\"",
            "[]",
            "{}",
            "[[[[[[[[",
            "{\"a\":",
            "\\u0000",
            "\ud800",
            "(",
            "*",
            "&a",
            "*a",
            "!!x",
            "- ",
            ": ",
            "\n",
            "\r",
            "\t",
            "'",
            "\"",
            ",");
    private static final List<String> WORDS = List.of(
            "-1", "0", "2147483647", "9223372036854775807", "1e999", "0.5", "null", "true", "{}", "[]", "(a*)*b", "a");
    private static final int MOST_REPEATS = 20_000;
    private static final int MOST_BYTES = 1 << 20;

    private final Random random;

    Mutator(long seed) {
        this.random = new Random(seed);
    }

    /** A copy of {@code intact} with one to four damages. */
    byte[] damaged(byte[] intact) {
        byte[] bytes = intact.clone();
        int most = random.nextBoolean() ? 1 : 4;
        for (int count = 1 + random.nextInt(most); count > 0 && bytes.length > 0; count--) {
            bytes = damagedOnce(bytes);
        }
        return bytes;
    }

    private byte[] damagedOnce(byte[] bytes) {
        int at = random.nextInt(bytes.length);
        switch (random.nextInt(14)) {
            case 0, 1 -> bytes[at] ^= (byte) (1 << random.nextInt(8));
            case 2 -> bytes[at] = (byte) random.nextInt(256);
            case 3, 4 -> overwrite(bytes, at);
            case 5 -> {
                return random.nextInt(4) == 0
                        ? Arrays.copyOf(bytes, at)
                        : without(bytes, at, length(bytes.length - at));
            }
            case 6 -> {
                byte[] inserted = new byte[1 + random.nextInt(8)];
                random.nextBytes(inserted);
                return with(bytes, at, inserted);
            }
            case 7, 8 -> {
                byte[] text = TEXTS.get(random.nextInt(TEXTS.size())).getBytes(StandardCharsets.UTF_8);
                int end = Math.min(bytes.length, at + random.nextInt(4));
                return with(without(bytes, at, end - at), at, text);
            }
            case 9 -> {
                return repeated(bytes, at);
            }
            default -> {
                return withOtherWord(bytes, at);
            }
        }
        return bytes;
    }

    /** Short ranges are more likely than long ones. */
    private int length(int most) {
        return 1 + random.nextInt(Math.min(most, 1 << random.nextInt(12)));
    }

    private void overwrite(byte[] bytes, int at) {
        ByteBuffer number = ByteBuffer.allocate(Long.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        number.putLong(0, NUMBERS[random.nextInt(NUMBERS.length)]);
        int aligned = random.nextBoolean() ? at & ~3 : at;
        number.get(0, bytes, aligned, Math.min(bytes.length - aligned, 1 << random.nextInt(4)));
    }

    /** Replaces a word by another one of the file or by one that tells much, so that the form of a text stays. */
    private byte[] withOtherWord(byte[] bytes, int at) {
        int[] word = word(bytes, at);
        int[] other = word(bytes, random.nextInt(bytes.length));
        byte[] text = random.nextBoolean()
                ? Arrays.copyOfRange(bytes, other[0], other[1])
                : WORDS.get(random.nextInt(WORDS.size())).getBytes(StandardCharsets.UTF_8);
        return with(without(bytes, word[0], word[1] - word[0]), word[0], text);
    }

    /** Start and end of the first word from {@code at} on; an empty one at the end. */
    private static int[] word(byte[] bytes, int at) {
        int start = at;
        while (start < bytes.length && !isWord(bytes[start])) {
            start++;
        }
        int end = start;
        while (end < bytes.length && isWord(bytes[end])) {
            end++;
        }
        return new int[] {start, end};
    }

    private static boolean isWord(byte b) {
        return b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b == '_' || b == '-' || b == '.';
    }

    private byte[] repeated(byte[] bytes, int at) {
        byte[] range = Arrays.copyOfRange(bytes, at, Math.min(bytes.length, at + length(16)));
        int times = 1 + random.nextInt(1 << (1 + random.nextInt(14)));
        times = Math.min(Math.min(times, MOST_REPEATS), Math.max(1, (MOST_BYTES - bytes.length) / range.length));
        byte[] inserted = new byte[range.length * times];
        for (int i = 0; i < inserted.length; i++) {
            inserted[i] = range[i % range.length];
        }
        return with(bytes, at, inserted);
    }

    private static byte[] without(byte[] bytes, int at, int count) {
        byte[] shorter = Arrays.copyOf(bytes, bytes.length - count);
        System.arraycopy(bytes, at + count, shorter, at, shorter.length - at);
        return shorter;
    }

    private static byte[] with(byte[] bytes, int at, byte[] inserted) {
        byte[] longer = Arrays.copyOf(bytes, bytes.length + inserted.length);
        System.arraycopy(inserted, 0, longer, at, inserted.length);
        System.arraycopy(bytes, at, longer, at + inserted.length, bytes.length - at);
        return longer;
    }
}
