// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import java.util.Arrays;

/**
 * Sizes that a file states about itself. Nothing in a file is trusted: a size is used only after it was multiplied,
 * added and compared here, where neither a negative number nor an overflow passes.
 */
public final class Sizes {
    private final String where;
    private final String remedy;

    /**
     * Sizes of one part of a file.
     *
     * @param where the file, and the part of it, as the subject of a sentence
     * @param remedy what to do about a damaged file, as its end
     */
    public Sizes(String where, String remedy) {
        this.where = where;
        this.remedy = remedy;
    }

    /**
     * The product of extents.
     *
     * @throws UserException when an extent is negative or the product is over 2^63
     */
    public long elements(long... shape) {
        // A zero makes the product zero, so the others are multiplied without it to be judged too.
        long product = 1;
        boolean empty = false;
        for (long extent : shape) {
            if (extent < 0) {
                throw wrong("has a negative extent in its shape " + Arrays.toString(shape));
            }
            empty |= extent == 0;
            product = extent == 0
                    ? product
                    : multiply(product, extent, "has the impossible shape " + Arrays.toString(shape));
        }
        return empty ? 0 : product;
    }

    /**
     * The size in bytes of elements of a number of bits, rounded up to a byte.
     *
     * @throws UserException when an extent is negative or the size is over 2^63
     */
    public long bytes(int bits, long... shape) {
        String problem = "has the impossible shape " + Arrays.toString(shape);
        long total = multiply(elements(shape), bits, problem);
        return total / 8 + (total % 8 == 0 ? 0 : 1);
    }

    /**
     * Checks that a range lies in a file.
     *
     * @param size of the file
     * @throws UserException when it is negative or ends behind the end of the file
     */
    public void range(long offset, long length, long size) {
        if (offset < 0 || length < 0 || offset > size - length) {
            throw wrong("needs %d bytes from %d on, but the file has %d".formatted(length, offset, size));
        }
    }

    /**
     * A number that must be between bounds.
     *
     * @param name of the field
     * @throws UserException when it is not
     */
    public long between(String name, long value, long least, long most) {
        if (value < least || value > most) {
            throw wrong("has %s %d, which is not between %d and %d".formatted(name, value, least, most));
        }
        return value;
    }

    /** A failure of this part of the file. */
    public UserException wrong(String problem) {
        return new UserException(where + ' ' + problem + "; " + remedy);
    }

    private long multiply(long a, long b, String problem) {
        try {
            return Math.multiplyExact(a, b);
        } catch (ArithmeticException e) {
            throw new UserException(where + ' ' + problem + "; " + remedy, e);
        }
    }
}
