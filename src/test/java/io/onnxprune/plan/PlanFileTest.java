// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.TestModels;
import io.onnxprune.diag.Fingerprint;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Random;
import java.util.stream.Stream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.MethodSource;

@Tag("ort")
class PlanFileTest {
    private static final String HASH = "00ff";
    private static final String GOOD = """
            {"format": "onnx-prune plan", "version": 1, "model_sha256": "00ff",
             "dimensions": [{"name": "heads.2", "role": "heads", "layer": 2, "size": 8, "keep": [1, 3, 6]}],
             "layers": [0, 5]}
            """;

    @TempDir
    private Path folder;

    static Stream<String> models() {
        return TestModels.names().stream();
    }

    @ParameterizedTest
    @MethodSource("models")
    void plansSurviveWritingAndReading(String name) {
        Structure structure = TestModels.structure(name);
        Plan random = ParameterCountTest.randomPlan(structure, new Random(2));
        Plan plan = new Plan(HASH, random.keep(), new int[] {0}, new int[] {0, 1});
        Path file = folder.resolve("plan.json");
        PlanFile.write(file, plan, structure);
        Plan found = PlanFile.read(file, structure, HASH);

        assertThat(found.model()).isEqualTo(HASH);
        assertThat(found.keep()).hasSameSizeAs(plan.keep());
        plan.keep().forEach((key, kept) -> assertThat(found.keep().get(key)).containsExactly(kept));
        assertThat(found.layers()).containsExactly(0);
        assertThat(found.blocks()).containsExactly(0, 1);
        assertThat(folder).isDirectoryNotContaining(path -> path.toString().endsWith(".tmp"));
    }

    @Test
    void aPlanThatPrunesNothingIsEmpty() {
        Structure structure = TestModels.structure("stories-llama");
        Path file = folder.resolve("plan.json");
        PlanFile.write(file, Plan.keepAll(HASH), structure);
        Plan found = PlanFile.read(file, structure, HASH);

        assertThat(found.keep()).isEmpty();
        assertThat(found.layers()).isNull();
        assertThat(found.blocks()).isNull();
    }

    @Test
    void optionalPartsMayBeLeftOut() {
        Plan plan = read("{\"format\": \"onnx-prune plan\", \"version\": 1,"
                + " \"dimensions\": [{\"name\": \"ffn.0\", \"keep\": [7]}]}");

        assertThat(plan.keep()).containsOnlyKeys("ffn.0");
        assertThat(plan.model()).isEqualTo(HASH);
    }

    @ParameterizedTest
    @CsvSource(delimiter = '|', quoteCharacter = '`', textBlock = """
        onnx-prune plan       | something else        | is not a plan: its "format" is not "onnx-prune plan"
        "version": 1          | "version": 7          | has version 7, but this program reads version 1
        00ff                  | abcd                  | was made for another model (SHA-256 abcd, not 00ff)
        "layers"              | "layer"               | has an unknown key "layer"; did you mean "layers"?
        "keep": [1, 3, 6]     | "kept": [1, 3, 6]     | unknown key "kept" of dimension "heads.2"; did you mean "keep"?
        heads.2               | head.2                | names dimension "head.2", which this model does not have; did you mean "heads.2"?
        "size": 8             | "size": 9             | gives dimension "heads.2" the size 9, but in this model it is 8
        [1, 3, 6]             | [1, 3, 8]             | keeps 8 of dimension "heads.2", whose indices are 0 to 7
        [1, 3, 6]             | [-1, 3]               | keeps -1 of dimension "heads.2", whose indices are 0 to 7
        [1, 3, 6]             | [1.5]                 | keeps 1.5 of dimension "heads.2"
        [1, 3, 6]             | [3, 1]                | keeps 3 and then 1 of dimension "heads.2", but indices must ascend
        [1, 3, 6]             | [3, 3]                | keeps 3 of dimension "heads.2" twice
        [1, 3, 6]             | []                    | keeps nothing of dimension "heads.2"
        [1, 3, 6]             | "all"                 | has no list of the indices to keep for dimension "heads.2"
        "heads.2", "role": "heads", "layer": 2, "size": 8 | "vocabulary-1" | shrinks dimension "vocabulary-1", which is pinned: looked up by index
        [0, 5]                | [6]                   | keeps 6 of layers, whose indices are 0 to 5
        [0, 5]                | []                    | keeps nothing of layers
        "name": "heads.2",    | `        `            | has an entry of "dimensions" without a name
        [0, 5]}               | [0, 5                 | is not JSON at line
        """)
    void plansThatDoNotFitTheModelAreRefused(String part, String replacement, String message) {
        assertThat(GOOD).contains(part);
        assertThat(read(GOOD).keep().get("heads.2")).containsExactly(1, 3, 6);
        assertThatThrownBy(() -> read(GOOD.replace(part, replacement)))
                .isInstanceOf(UserException.class)
                .hasMessageContaining(folder.resolve("plan.json").toString())
                .hasMessageContaining(message);
    }

    @Test
    void aDimensionIsNamedOnce() {
        String entry = "{\"name\": \"ffn.0\", \"keep\": [7]}";
        assertThatThrownBy(() -> read("{\"format\": \"onnx-prune plan\", \"version\": 1, \"dimensions\": [" + entry
                        + ", " + entry + "]}"))
                .hasMessageContaining("names dimension \"ffn.0\" twice");
    }

    @Test
    void filesThatCannotBeReadOrWrittenAreReported() {
        Structure structure = TestModels.structure("stories-llama");
        Path absent = folder.resolve("absent").resolve("plan.json");

        assertThatThrownBy(() -> PlanFile.read(absent, structure, HASH))
                .isInstanceOf(UserException.class)
                .hasMessageContaining(absent.toString());
        assertThatThrownBy(() -> PlanFile.write(absent, Plan.keepAll(HASH), structure))
                .isInstanceOf(UserException.class)
                .hasMessageContaining(absent.toString());
        assertThatThrownBy(() -> Fingerprint.of(absent))
                .isInstanceOf(UserException.class)
                .hasMessageContaining(absent.toString());
    }

    /** Beyond the limits of the parser it has no place to name. */
    @Test
    void textsThatAreTooDeepOrHaveEndlessNumbers() {
        for (String text : new String[] {"[".repeat(100_000), "{\"a\":".repeat(2000), "1" + "0".repeat(5000)}) {
            assertThatThrownBy(() -> read(text))
                    .isInstanceOf(UserException.class)
                    .hasMessageContaining("plan.json")
                    .hasMessageNotContaining("null");
        }
    }

    @Test
    void theHashIsSha256() throws IOException {
        Path file = Files.writeString(folder.resolve("abc"), "abc");

        assertThat(Fingerprint.of(file)).isEqualTo("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    private Plan read(String text) {
        try {
            Path file = Files.writeString(folder.resolve("plan.json"), text);
            return PlanFile.read(file, TestModels.structure("stories-llama"), HASH);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
