// SPDX-License-Identifier: Apache-2.0
package io.onnxprune;

import static org.assertj.core.api.Assertions.assertThat;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Set;
import java.util.TreeSet;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The licence of everything that is bundled is named in the jar, and its content is locked. */
class ThirdPartyTest {
    private static final Path LICENCES = Path.of("src", "main", "resources", "META-INF", "THIRD-PARTY.md");
    private static final Pattern ROW = Pattern.compile("(?m)^\\| (\\S+:\\S+) \\| (\\S+) \\| \\S.* \\|$");

    /**
     * The lock files are made by {@code mvn se.vandmo:dependency-lock-maven-plugin:lock}, with {@code -Pcuda
     * -Ddependency-lock.file=.mvn/dependencies-cuda.lock.json} for the second one.
     */
    @ParameterizedTest
    @ValueSource(strings = {"dependencies.lock.json", "dependencies-cuda.lock.json"})
    void everyBundledLibraryIsListed(String lock) throws IOException {
        Set<String> bundled = new TreeSet<>();
        JsonNode locked =
                new ObjectMapper().readTree(Path.of(".mvn", lock).toFile()).path("dependencies");
        for (JsonNode library : locked) {
            assertThat(library.path("integrity").asText())
                    .as(library.toString())
                    .startsWith("sha512:");
            if (!library.path("scope").asText().equals("test")) {
                bundled.add(library.path("groupId").asText()
                        + ':'
                        + library.path("artifactId").asText()
                        + ' '
                        + library.path("version").asText());
            }
        }

        assertThat(listed()).isEqualTo(bundled).hasSizeGreaterThan(20);
    }

    private static Set<String> listed() throws IOException {
        Set<String> listed = new TreeSet<>();
        Matcher row = ROW.matcher(Files.readString(LICENCES));
        while (row.find()) {
            listed.add(row.group(1) + ' ' + row.group(2));
        }
        return listed;
    }
}
