// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.RecordedLog;
import io.onnxprune.TestModels;
import io.onnxprune.diag.UsageException;
import io.onnxprune.runtime.RuntimeOptions;
import java.io.IOException;
import java.net.URISyntaxException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.jar.JarEntry;
import java.util.jar.JarOutputStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.BeforeEach;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** The code of docs/writing-passes.md compiles into a jar whose metric and pass a recipe can name. */
@Tag("ort")
class WritingPassesTest {
    @TempDir
    private Path folder;

    private Map<String, String> files;

    @BeforeEach
    void read() throws IOException {
        files = DocumentedCode.files("writing-passes.md");
    }

    private Path jar() throws IOException, URISyntaxException {
        Path classes = Files.createDirectory(folder.resolve("classes"));
        List<Path> sources = new ArrayList<>();
        for (Map.Entry<String, String> file : files.entrySet()) {
            if (file.getKey().endsWith(".java")) {
                sources.add(Files.writeString(folder.resolve(file.getKey()), file.getValue()));
            } else if (file.getKey().startsWith("META-INF")) {
                Path target = classes.resolve(file.getKey());
                Files.createDirectories(target.getParent());
                Files.writeString(target, file.getValue());
            }
        }
        DocumentedCode.compile(sources, classes);
        Path jar = folder.resolve("mine.jar");
        try (JarOutputStream target = new JarOutputStream(Files.newOutputStream(jar));
                Stream<Path> inside = Files.walk(classes)) {
            for (Path file : inside.filter(Files::isRegularFile).toList()) {
                target.putNextEntry(
                        new JarEntry(classes.relativize(file).toString().replace('\\', '/')));
                Files.copy(file, target);
            }
        }
        return jar;
    }

    private Pruner pruner(List<Path> extensions) throws IOException {
        Path recipe = Files.writeString(folder.resolve("mine.yaml"), files.get("mine.yaml"));
        return Pruner.builder(TestModels.file("stories-llama"))
                .output(folder.resolve("small.onnx"))
                .recipe(settings -> settings.extensions(extensions).recipe(recipe))
                .calibration(Path.of("testmodels", "tokens.jsonl"))
                .workFolder(folder.resolve("work"))
                .runtime(RuntimeOptions.cpu(1))
                .build();
    }

    @Test
    void aMetricAndAPassOfOnesOwnAreOneClassEachInAJar() throws IOException, URISyntaxException {
        assertThat(files).containsKeys("ActivationNormMetric.java", "RoundWeightsPass.java", "mine.yaml");
        RecordedLog log = new RecordedLog();

        PruneReport report = pruner(List.of(jar())).run(TestModels.runtime(), ProgressListener.of(log));

        assertThat(report.ratioAchieved()).isBetween(0.09, 0.11);
        assertThat(report.toJson().get("rounded")).isEqualTo(report.toJson().get("compensated"));
        assertThat((int) report.toJson().get("rounded")).isPositive();
        assertThat(log.lines()).anyMatch(line -> line.matches("info: rounded \\d+ weights to 12 bits"));
        assertThat(report.state().report()).containsKey("verification");
    }

    @Test
    void withoutTheJarTheRecipeIsRefused() {
        assertThatThrownBy(() -> pruner(List.of()))
                .isInstanceOf(UsageException.class)
                .hasMessageContaining("metric must be one of magnitude, random")
                .hasMessageContaining("not \"activation-norm\"");
    }
}
