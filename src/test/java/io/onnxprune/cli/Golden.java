// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;

/** Expected texts in files. {@code mvn test -Dgolden.write=true} rewrites them for review. */
final class Golden {
    private Golden() {}

    static void assertSame(Path file, String text) throws IOException {
        if (Boolean.getBoolean("golden.write")) {
            Files.writeString(file, text);
        }
        assertThat(text)
                .as("%s; if the change is meant, run mvn test -Dgolden.write=true", file)
                .isEqualTo(Files.readString(file));
    }
}
