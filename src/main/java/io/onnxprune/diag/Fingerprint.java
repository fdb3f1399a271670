// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import static java.nio.charset.StandardCharsets.UTF_8;

import java.io.IOException;
import java.io.InputStream;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.Collection;
import java.util.HexFormat;
import java.util.List;

/** SHA-256 sums of files, and short ones that tell runs apart. */
public final class Fingerprint {
    /** Digits of a sum in the name of a file. */
    private static final int SHORT = 16;

    private static final int BLOCK = 1 << 16;

    private Fingerprint() {}

    /**
     * SHA-256 of a file in hexadecimal.
     *
     * @throws UserException if it cannot be read
     */
    public static String of(Path file) {
        try (InputStream input = Files.newInputStream(file)) {
            MessageDigest digest = digest();
            byte[] buffer = new byte[BLOCK];
            for (int count = input.read(buffer); count >= 0; count = input.read(buffer)) {
                digest.update(buffer, 0, count);
            }
            return HexFormat.of().formatHex(digest.digest());
        } catch (IOException e) {
            throw new UserException("cannot read " + file + ": " + FileFailure.reason(e), e);
        }
    }

    /**
     * A short sum of everything that a result depends on.
     *
     * @param parts their text says all about them
     * @param rows token ids
     */
    public static String of(List<?> parts, Collection<long[]> rows) {
        MessageDigest digest = digest();
        parts.forEach(part -> digest.update((part + "\n").getBytes(UTF_8)));
        for (long[] row : rows) {
            ByteBuffer bytes = ByteBuffer.allocate(Long.BYTES * row.length);
            bytes.asLongBuffer().put(row);
            digest.update(bytes);
            digest.update((byte) 0);
        }
        return HexFormat.of().formatHex(digest.digest()).substring(0, SHORT);
    }

    private static MessageDigest digest() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java platform has SHA-256", e);
        }
    }
}
