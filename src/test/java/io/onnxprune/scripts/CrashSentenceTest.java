// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.scripts;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** A lost page that native code reads ends the process, which Java cannot catch: the launchers say a sentence then. */
class CrashSentenceTest {
    private static final String SENTENCE =
            "error: the process crashed in native code, perhaps because an input file was"
                    + " cut short while it was read";

    @TempDir
    private Path folder;

    @Test
    void aBusErrorIsOneSentence() throws IOException, InterruptedException {
        assumeTrue(System.getProperty("os.name").equals("Linux"));
        Path program = Files.writeString(folder.resolve("Waiting.java"), """
                public class Waiting {
                    public static void main(String[] arguments) throws Exception {
                        System.out.println("begun");
                        Thread.sleep(60_000);
                    }
                }
                """);
        String java = Path.of(System.getProperty("java.home"), "bin", "java").toString();
        String script = """
                eval "$(grep ^jvm_crash= '%s')"
                exec 3< <(exec '%s' "${jvm_crash[@]}" -XX:+UseSerialGC -XX:-CreateCoredumpOnCrash \\
                    -XX:ErrorFile='%s/hs' '%s' 2>&1)
                read -r line <&3
                kill -BUS $!
                cat <&3
                """.formatted(Command.script("onnx-prune"), java, folder, program);

        assertThat(Command.bash(Map.of(), "-c", script).output().lines()).containsOnlyOnce(SENTENCE);
    }

    @ParameterizedTest
    @ValueSource(strings = {"onnx-prune", "bundle-launcher.sh"})
    void bothLaunchersHaveIt(String launcher) throws IOException {
        List<String> lines = Files.readAllLines(Command.script(launcher));

        assertThat(lines).anyMatch(line -> line.contains("\"-XX:OnError=echo '" + SENTENCE + "' >&2\""));
    }
}
