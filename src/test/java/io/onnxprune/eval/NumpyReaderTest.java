// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.eval;

import static java.nio.charset.StandardCharsets.ISO_8859_1;
import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.diag.UserException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Optional;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Headers of NumPy files that no NumPy writes. */
@Timeout(value = 20, unit = TimeUnit.SECONDS)
class NumpyReaderTest {
    @TempDir
    private Path folder;

    private Path file(int version, int length, String header) throws IOException {
        ByteBuffer bytes = ByteBuffer.allocate(12 + header.length() + 64).order(ByteOrder.LITTLE_ENDIAN);
        bytes.put((byte) 0x93)
                .put("NUMPY".getBytes(ISO_8859_1))
                .put((byte) version)
                .put((byte) 0);
        if (version == 1) {
            bytes.putShort((short) length);
        } else {
            bytes.putInt(length);
        }
        bytes.put(header.getBytes(ISO_8859_1)).put(new byte[64]).flip();
        byte[] content = new byte[bytes.remaining()];
        bytes.get(content);
        return Files.write(folder.resolve("a.npy"), content);
    }

    private Path shaped(String shape) throws IOException {
        String header = "{'descr': '<i8', 'fortran_order': False, 'shape': (" + shape + "), }";
        return file(1, header.length(), header);
    }

    private static void assertRefused(Path file, String part) {
        assertThatThrownBy(() -> TokenData.load(file, Optional.empty()))
                .isInstanceOf(UserException.class)
                .hasMessageContaining(part)
                .hasMessageContaining("a.npy")
                .hasMessageEndingWith("; save int64 rows with numpy.save");
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', textBlock = """
            2305843009213693952, 8 | impossible shape
            4294967296, 4294967296 | impossible shape
            -1, 3                  | negative extent
            9, 1                   | truncated
            99999999999999999999,  | its shape is
            1, 2, 3                | one or two axes
            ,                      | one or two axes
            two, 3                 | its shape is
            """)
    void shapes(String shape, String part) throws IOException {
        assertRefused(shaped(shape), part);
    }

    /** There is nothing to read, however many rows there are. */
    @Test
    void manyRowsWithoutColumns() throws IOException {
        TokenData.Rows rows = TokenData.load(shaped("1000000000000, 0"), Optional.empty());

        assertThat(rows.fixed).isEmpty();
    }

    @ParameterizedTest
    @ValueSource(ints = {-1, 1_000_000, Integer.MAX_VALUE, Integer.MIN_VALUE})
    void lengthsOfHeaders(int length) throws IOException {
        assertRefused(file(2, length, "{}"), "header");
    }

    @Test
    void otherHeaders() throws IOException {
        assertRefused(file(9, 2, "{}"), "its header is of version 9");
        assertRefused(file(1, 2, "{}"), "does not hold int32 or int64");
        String fortran = "{'descr': '<i8', 'fortran_order': True, 'shape': (2, 2), }";
        assertRefused(file(1, fortran.length(), fortran), "Fortran order");
        Path file = Files.write(folder.resolve("a.npy"), "\u0093NUMPX...........".getBytes(ISO_8859_1));
        assertRefused(file, "no NumPy header");
    }
}
