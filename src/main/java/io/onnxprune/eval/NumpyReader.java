// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static java.nio.charset.StandardCharsets.ISO_8859_1;

import io.onnxprune.diag.Sizes;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.DType;
import io.onnxprune.runtime.HostTensor;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Reads NumPy .npy files in C order: token ids (little-endian int32 or int64, one or two axes), and float32 arrays.
 */
final class NumpyReader {
    private static final String REMEDY = "save int64 rows with numpy.save";
    private static final String FLOAT_REMEDY = "save a float32 array with numpy.save";
    private static final int MAX_AXES = 8;
    private static final Pattern TYPE = Pattern.compile("'descr'\\s*:\\s*'([^']*)'");
    private static final Pattern FORTRAN = Pattern.compile("'fortran_order'\\s*:\\s*(\\w+)");
    private static final Pattern SHAPE = Pattern.compile("'shape'\\s*:\\s*\\(([^)]*)\\)");

    /** The longest header of an array of one or two axes that NumPy writes is of some hundred bytes. */
    private static final int MAX_HEADER_BYTES = 1 << 16;

    private static final byte[] MAGIC = {(byte) 0x93, 'N', 'U', 'M', 'P', 'Y'};

    private NumpyReader() {}

    static TokenData.Rows read(Path file) throws IOException {
        try (FileChannel channel = FileChannel.open(file)) {
            if (channel.size() > Integer.MAX_VALUE) {
                throw unreadable(file, "it is larger than 2 GiB");
            }
            ByteBuffer bytes = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size())
                    .order(ByteOrder.LITTLE_ENDIAN);
            return readRows(file, header(file, bytes), bytes);
        }
    }

    /** Whether a file is a float32 array of three axes: rows of embeddings. */
    static boolean isOfEmbeddings(Path file) throws IOException {
        try (FileChannel channel = FileChannel.open(file)) {
            ByteBuffer start = ByteBuffer.allocate((int) Math.min(channel.size(), MAX_HEADER_BYTES))
                    .order(ByteOrder.LITTLE_ENDIAN);
            channel.read(start);
            String header = header(file, start.flip());
            Matcher type = TYPE.matcher(header);
            return type.find() && type.group(1).equals("<f4") && shape(file, header, MAX_AXES).length == 3;
        }
    }

    /**
     * A float32 array, mapped.
     *
     * @throws UserException when the file is not one, or is damaged
     */
    static HostTensor floats(Path file) throws IOException {
        try (FileChannel channel = FileChannel.open(file)) {
            if (channel.size() > Integer.MAX_VALUE) {
                throw unreadableArray(file, "it is larger than 2 GiB");
            }
            ByteBuffer bytes = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size())
                    .order(ByteOrder.LITTLE_ENDIAN);
            String header = header(file, bytes);
            Matcher type = TYPE.matcher(header);
            Matcher fortran = FORTRAN.matcher(header);
            if (!type.find() || !type.group(1).equals("<f4")) {
                throw unreadableArray(file, "it does not hold float32");
            }
            if (fortran.find() && fortran.group(1).equals("True")) {
                throw unreadableArray(file, "it is in Fortran order");
            }
            long[] shape = shape(file, header, MAX_AXES);
            long size = new Sizes("the data file " + file, FLOAT_REMEDY).bytes(Float.SIZE, shape);
            if (size > bytes.remaining()) {
                throw unreadableArray(file, "it is truncated");
            }
            return new HostTensor(DType.FLOAT, shape, bytes.slice(bytes.position(), (int) size));
        }
    }

    private static UserException unreadableArray(Path file, String why) {
        return new UserException(
                "the data file %s is not a readable NumPy array of numbers: %s; %s".formatted(file, why, FLOAT_REMEDY));
    }

    /** The header; the buffer is left at the first element. */
    private static String header(Path file, ByteBuffer bytes) {
        if (bytes.remaining() < 12 || !bytes.slice(0, MAGIC.length).equals(ByteBuffer.wrap(MAGIC))) {
            throw unreadable(file, "it has no NumPy header");
        }
        int version = bytes.get(6);
        if (version < 1 || version > 3) {
            throw unreadable(file, "its header is of version " + (version & 0xff));
        }
        int start = version == 1 ? 10 : 12;
        int length = version == 1 ? bytes.getShort(8) & 0xffff : bytes.getInt(8);
        if (length < 0 || length > bytes.remaining() - start || length > MAX_HEADER_BYTES) {
            throw unreadable(file, "its header is truncated");
        }
        byte[] header = new byte[length];
        bytes.get(start, header).position(start + length);
        return new String(header, ISO_8859_1);
    }

    private static TokenData.Rows readRows(Path file, String header, ByteBuffer bytes) {
        Matcher type = TYPE.matcher(header);
        Matcher fortran = FORTRAN.matcher(header);
        if (!type.find() || !(type.group(1).equals("<i4") || type.group(1).equals("<i8"))) {
            throw unreadable(file, "it does not hold int32 or int64");
        }
        long[] shape = shape(file, header, 2);
        boolean flat = shape.length == 1;
        if (fortran.find() && fortran.group(1).equals("True") && !flat) {
            throw unreadable(file, "it is in Fortran order");
        }
        int width = type.group(1).equals("<i8") ? Long.BYTES : Integer.BYTES;
        Sizes sizes = new Sizes("the data file " + file, REMEDY);
        if (sizes.bytes(width * Byte.SIZE, shape) > bytes.remaining()) {
            throw unreadable(file, "it is truncated");
        }
        TokenData.Rows result = new TokenData.Rows();
        // Without columns there is nothing to read, however many rows there are.
        long rows = flat ? 1 : sizes.elements(shape) == 0 ? 0 : shape[0];
        for (long row = 0; row < rows; row++) {
            long[] ids = new long[(int) shape[shape.length - 1]];
            for (int i = 0; i < ids.length; i++) {
                ids[i] = width == Long.BYTES ? bytes.getLong() : bytes.getInt();
            }
            if (flat) {
                result.running.add(TokenData.Piece.of(ids));
            } else {
                result.fixed.add(ids);
            }
        }
        return result;
    }

    private static long[] shape(Path file, String header, int most) {
        Matcher shape = SHAPE.matcher(header);
        String[] extents = shape.find() ? shape.group(1).strip().split("\\s*,\\s*") : new String[0];
        if (extents.length < 1 || extents.length > most) {
            throw unreadable(file, "it does not have one or two axes");
        }
        try {
            return Arrays.stream(extents).mapToLong(Long::parseLong).toArray();
        } catch (NumberFormatException e) {
            throw unreadable(file, "its shape is (" + shape.group(1) + ")");
        }
    }

    private static UserException unreadable(Path file, String why) {
        return new UserException(
                "the data file %s is not a readable NumPy array of token ids: %s; %s".formatted(file, why, REMEDY));
    }
}
