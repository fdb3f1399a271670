// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * A table of a FlatBuffer that may be damaged. Every position, length and alignment is checked before it is used, as
 * FlatBuffers' own verifier for C++ does; the one for Java does not exist. Fields are named by their ids in the schema.
 */
public final class FlatTable {
    private static final int IDENTIFIER_BYTES = 4;

    private final ByteBuffer bytes;
    private final int start;
    private final int size;
    private final int directory;
    private final int directorySize;

    /** The buffer is damaged. */
    public static final class DamagedException extends IOException {
        private static final long serialVersionUID = 1;

        private DamagedException(String message) {
            super(message);
        }
    }

    private FlatTable(ByteBuffer bytes, int start) throws DamagedException {
        this.bytes = bytes;
        this.start = start;
        require(bytes, start, Integer.BYTES, Integer.BYTES);
        this.directory = checked((long) start - bytes.getInt(start));
        require(bytes, directory, 2 * Short.BYTES, Short.BYTES);
        this.directorySize = unsigned(directory);
        this.size = unsigned(directory + Short.BYTES);
        if (directorySize < 2 * Short.BYTES || directorySize % Short.BYTES != 0) {
            throw new DamagedException("a table has a directory of %d bytes".formatted(directorySize));
        }
        require(bytes, directory, directorySize, Short.BYTES);
        require(bytes, start, Math.max(size, Integer.BYTES), Integer.BYTES);
    }

    /**
     * The root of a buffer.
     *
     * @param bytes from their position to their limit
     * @param identifier four characters that tell the kind of file
     */
    public static FlatTable root(ByteBuffer bytes, String identifier) throws DamagedException {
        ByteBuffer all = bytes.slice().order(ByteOrder.LITTLE_ENDIAN);
        byte[] expected = identifier.getBytes(StandardCharsets.US_ASCII);
        require(all, 0, Integer.BYTES + IDENTIFIER_BYTES, 1);
        if (!all.slice(Integer.BYTES, IDENTIFIER_BYTES).equals(ByteBuffer.wrap(expected))) {
            throw new DamagedException("it does not have the mark \"" + identifier + '"');
        }
        return new FlatTable(all, checked(all.getInt(0)));
    }

    private static int checked(long position) throws DamagedException {
        if (position < 0 || position > Integer.MAX_VALUE) {
            throw new DamagedException("a position is outside the file");
        }
        return (int) position;
    }

    private static void require(ByteBuffer bytes, long from, long length, int alignment) throws DamagedException {
        if (from < 0 || length < 0 || from > bytes.limit() - length) {
            throw new DamagedException("%d bytes from %d on are outside the file".formatted(length, from));
        }
        if (from % alignment != 0) {
            throw new DamagedException("the position %d is not a multiple of %d".formatted(from, alignment));
        }
    }

    private int unsigned(int position) {
        return Short.toUnsignedInt(bytes.getShort(position));
    }

    /** The position of a field of {@code width} bytes; 0 when the table does not have it. */
    private int field(int id, int width) throws DamagedException {
        int entry = (id + 2) * Short.BYTES;
        int offset = entry < directorySize ? unsigned(directory + entry) : 0;
        if (offset == 0) {
            return 0;
        }
        if (offset + width > size) {
            throw new DamagedException("a field is outside its table");
        }
        require(bytes, start + offset, width, width);
        return start + offset;
    }

    /** The position that a field refers to; 0 when the table does not have the field. */
    private int target(int id) throws DamagedException {
        int field = field(id, Integer.BYTES);
        return field == 0 ? 0 : followed(field);
    }

    private int followed(int position) throws DamagedException {
        return checked(position + Integer.toUnsignedLong(bytes.getInt(position)));
    }

    /** A number; {@code otherwise} when the table does not have it. */
    public int integer(int id, int otherwise) throws DamagedException {
        int field = field(id, Integer.BYTES);
        return field == 0 ? otherwise : bytes.getInt(field);
    }

    /** Another table; null when this one does not have it. */
    public FlatTable table(int id) throws DamagedException {
        int target = target(id);
        return target == 0 ? null : new FlatTable(bytes, target);
    }

    /** A text; null when the table does not have it. */
    public String text(int id) throws DamagedException {
        ByteBuffer content = vector(id, 1);
        if (content == null) {
            return null;
        }
        int end = target(id) + Integer.BYTES + content.remaining();
        require(bytes, end, 1, 1);
        if (bytes.get(end) != 0) {
            throw new DamagedException("a text has no end");
        }
        return StandardCharsets.UTF_8.decode(content).toString();
    }

    /** The elements of a vector of bytes; null when the table does not have it. */
    public ByteBuffer content(int id) throws DamagedException {
        return vector(id, 1);
    }

    /** The elements of a vector of 64-bit integers; null when the table does not have it. */
    public long[] longs(int id) throws DamagedException {
        ByteBuffer elements = vector(id, Long.BYTES);
        if (elements == null) {
            return null;
        }
        long[] values = new long[elements.remaining() / Long.BYTES];
        Arrays.setAll(values, i -> elements.getLong(i * Long.BYTES));
        return values;
    }

    /** The tables of a vector; null when the table does not have it. */
    public List<FlatTable> tables(int id) throws DamagedException {
        ByteBuffer elements = vector(id, Integer.BYTES);
        if (elements == null) {
            return null;
        }
        int first = target(id) + Integer.BYTES;
        List<FlatTable> tables = new ArrayList<>();
        for (int position = first; position < first + elements.remaining(); position += Integer.BYTES) {
            tables.add(new FlatTable(bytes, followed(position)));
        }
        return tables;
    }

    private ByteBuffer vector(int id, int width) throws DamagedException {
        int target = target(id);
        if (target == 0) {
            return null;
        }
        require(bytes, target, Integer.BYTES, Integer.BYTES);
        long length = Integer.toUnsignedLong(bytes.getInt(target)) * width;
        require(bytes, (long) target + Integer.BYTES, length, width);
        return bytes.slice(target + Integer.BYTES, (int) length).order(ByteOrder.LITTLE_ENDIAN);
    }
}
