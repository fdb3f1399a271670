// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static java.nio.charset.StandardCharsets.ISO_8859_1;

import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** Reads token ids from NumPy .npy files: little-endian int32 or int64, one or two axes, C order. */
final class NumpyReader {
    private static final Pattern TYPE = Pattern.compile("'descr'\\s*:\\s*'([^']*)'");
    private static final Pattern FORTRAN = Pattern.compile("'fortran_order'\\s*:\\s*(\\w+)");
    private static final Pattern SHAPE = Pattern.compile("'shape'\\s*:\\s*\\(\\s*(\\d+)\\s*,?\\s*(\\d*)\\s*,?\\s*\\)");

    private NumpyReader() {}

    static TokenData.Rows read(Path file) throws IOException {
        ByteBuffer bytes;
        try (FileChannel channel = FileChannel.open(file)) {
            bytes = channel.map(FileChannel.MapMode.READ_ONLY, 0, channel.size())
                    .order(ByteOrder.LITTLE_ENDIAN);
        }
        if (bytes.remaining() < 12 || (bytes.get(0) & 0xff) != 0x93 || bytes.get(1) != 'N') {
            throw unreadable(file, "it has no NumPy header");
        }
        boolean first = bytes.get(6) == 1;
        int start = first ? 10 : 12;
        int length = first ? bytes.getShort(8) & 0xffff : bytes.getInt(8);
        if (length < 0 || length > bytes.remaining() - start) {
            throw unreadable(file, "its header is truncated");
        }
        byte[] header = new byte[length];
        bytes.get(start, header);
        return readRows(file, new String(header, ISO_8859_1), bytes.position(start + length));
    }

    private static TokenData.Rows readRows(Path file, String header, ByteBuffer bytes) {
        Matcher type = TYPE.matcher(header);
        Matcher shape = SHAPE.matcher(header);
        Matcher fortran = FORTRAN.matcher(header);
        if (!type.find() || !(type.group(1).equals("<i4") || type.group(1).equals("<i8"))) {
            throw unreadable(file, "it does not hold int32 or int64");
        }
        if (!shape.find()) {
            throw unreadable(file, "it does not have one or two axes");
        }
        boolean flat = shape.group(2).isEmpty();
        if (fortran.find() && fortran.group(1).equals("True") && !flat) {
            throw unreadable(file, "it is in Fortran order");
        }
        int width = type.group(1).equals("<i8") ? 8 : 4;
        long rows = flat ? 1 : Long.parseLong(shape.group(1));
        long columns = Long.parseLong(shape.group(flat ? 1 : 2));
        if (rows * columns * width > bytes.remaining()) {
            throw unreadable(file, "it is truncated");
        }
        TokenData.Rows result = new TokenData.Rows();
        for (long row = 0; row < rows; row++) {
            long[] ids = new long[(int) columns];
            for (int i = 0; i < ids.length; i++) {
                ids[i] = width == 8 ? bytes.getLong() : bytes.getInt();
            }
            if (flat) {
                result.running.add(TokenData.Piece.of(ids));
            } else {
                result.fixed.add(ids);
            }
        }
        return result;
    }

    private static UserException unreadable(Path file, String why) {
        return new UserException(
                "the data file %s is not a readable NumPy array of token ids: %s; save int64 rows with numpy.save"
                        .formatted(file, why));
    }
}
