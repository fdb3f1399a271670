// SPDX-License-Identifier: Apache-2.0
package io.onnxprune;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Random;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** Files of calibration rows. */
public final class TokenRows {
    private TokenRows() {}

    /** Writes 24 rows of 32 random tokens below {@code vocabulary}, always the same ones. */
    public static Path random(Path folder, int vocabulary) throws IOException {
        Random random = new Random(3);
        String rows = IntStream.range(0, 24)
                .mapToObj(row -> random.ints(32, 1, vocabulary)
                        .mapToObj(Integer::toString)
                        .collect(Collectors.joining(",")))
                .collect(Collectors.joining("]}\n{\"input_ids\":[", "{\"input_ids\":[", "]}\n"));
        return Files.writeString(folder.resolve("rows.jsonl"), rows);
    }
}
