// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.fuzz;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.PrintStream;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import org.junit.jupiter.api.DynamicTest;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.TestFactory;
import org.junit.jupiter.api.io.TempDir;

/**
 * Every reader reads or refuses damaged files ({@link FuzzTarget}). The test takes {@code -Dfuzz.seconds} for each
 * reader; {@link #main} takes as long, in a process that may end, and any seed.
 */
@Tag("ort")
@Tag("slow")
class FuzzTest {
    private static final int SECONDS = Integer.getInteger("fuzz.seconds", 3);
    private static final long SEED = Long.getLong("fuzz.seed", 1);

    @TempDir
    private static Path folder;

    @TestFactory
    List<DynamicTest> readersReadOrRefuse() throws IOException {
        return FuzzTargets.in(folder).stream()
                .map(target -> DynamicTest.dynamicTest(
                        target.name(),
                        () -> assertThat(target.run(SEED, Duration.ofSeconds(SECONDS))
                                        .failures())
                                .isEmpty()))
                .toList();
    }

    /** Runs the named targets, or all; {@code -Dfuzz.seconds=3600} for an hour each. */
    public static void main(String[] names) throws IOException {
        PrintStream out = System.out;
        Path folder = Files.createTempDirectory("fuzz");
        out.println("the last copy of each target is in " + folder);
        for (FuzzTarget target : FuzzTargets.in(folder)) {
            if (names.length == 0 || List.of(names).contains(target.name())) {
                FuzzTarget.Outcome outcome = target.run(SEED, Duration.ofSeconds(SECONDS));
                out.println(target.name() + ": " + outcome);
                outcome.failures().forEach(out::println);
            }
        }
        System.exit(0);
    }
}
