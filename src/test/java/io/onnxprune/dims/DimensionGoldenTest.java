// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.fail;

import io.onnxprune.TestModels;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * The dimensions of every committed model as text. {@code -Dgolden.update=true} writes the golden files and fails;
 * review the difference before committing it.
 */
@Tag("ort")
class DimensionGoldenTest {
    private static final Path GOLDEN = Path.of("src", "test", "resources", "golden", "inspect");
    private static final boolean UPDATE = Boolean.getBoolean("golden.update");

    static List<String> models() {
        return TestModels.names();
    }

    @ParameterizedTest
    @MethodSource("models")
    void dimensionsAreAsBefore(String name) throws IOException {
        Structure structure = TestModels.structure(name);
        String text = DimensionText.of(structure);
        Path golden = GOLDEN.resolve(name + ".txt");
        if (UPDATE) {
            Files.createDirectories(GOLDEN);
            Files.writeString(golden, text);
            fail("wrote " + golden);
        }

        assertThat(golden).exists();
        assertThat(text).isEqualTo(Files.readString(golden));
    }

    @Test
    void everyGoldenFileBelongsToAModel() throws IOException {
        try (var files = Files.list(GOLDEN)) {
            assertThat(files.map(file -> file.getFileName().toString()).collect(Collectors.toSet()))
                    .isEqualTo(TestModels.names().stream()
                            .map(name -> name + ".txt")
                            .collect(Collectors.toSet()));
        }
    }
}
