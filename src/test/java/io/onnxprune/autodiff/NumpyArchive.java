// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Enumeration;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.zip.ZipEntry;
import java.util.zip.ZipFile;

/** Reads float32 and float64 arrays from NumPy's .npz files. */
public final class NumpyArchive {
    private static final Pattern HEADER =
            Pattern.compile("'descr': '<f(\\d)', 'fortran_order': False, 'shape': \\(([^)]*)\\)");

    /** An array in row-major order. */
    @SuppressWarnings("ArrayRecordComponent") // plain data of a test
    public record Array(long[] shape, double[] values) {}

    private NumpyArchive() {}

    /** The arrays whose name starts with {@code prefix}, by the rest of their name. */
    public static Map<String, Array> read(Path file, String prefix) throws IOException {
        Map<String, Array> arrays = new LinkedHashMap<>();
        try (ZipFile zip = new ZipFile(file.toFile())) {
            Enumeration<? extends ZipEntry> entries = zip.entries();
            while (entries.hasMoreElements()) {
                ZipEntry entry = entries.nextElement();
                if (entry.getName().startsWith(prefix)) {
                    String name = entry.getName().substring(prefix.length()).replaceFirst("\\.npy$", "");
                    arrays.put(name, array(zip.getInputStream(entry).readAllBytes(), entry.getName()));
                }
            }
        }
        return arrays;
    }

    private static Array array(byte[] bytes, String name) {
        ByteBuffer buffer = ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN);
        int length = buffer.getShort(8);
        Matcher header = HEADER.matcher(new String(bytes, 10, length, StandardCharsets.ISO_8859_1));
        if (!header.find()) {
            throw new IllegalArgumentException(name + " is not an array of floats");
        }
        long[] shape = Arrays.stream(header.group(2).split(","))
                .map(String::strip)
                .filter(extent -> !extent.isEmpty())
                .mapToLong(Long::parseLong)
                .toArray();
        buffer.position(10 + length);
        double[] values = new double[(int) Arrays.stream(shape).reduce(1, (a, b) -> a * b)];
        boolean wide = header.group(1).equals("8");
        for (int i = 0; i < values.length; i++) {
            values[i] = wide ? buffer.getDouble() : buffer.getFloat();
        }
        return new Array(shape, values);
    }
}
