// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.latency;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.diag.Log;
import io.onnxprune.latency.ProductShape.Form;
import io.onnxprune.latency.ProductShape.Operand;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class TimeTableTest {
    private static final ProductShape FULL = new ProductShape(1, 8, 96, 480, Operand.of(Form.MATRIX, false));

    @TempDir
    private Path folder;

    private final List<ProductShape> timed = new ArrayList<>();
    private final List<String> warnings = new ArrayList<>();

    private final Log log = new Log.Forwarding(Log.NONE) {
        @Override
        public void warn(String message) {
            warnings.add(message);
        }
    };

    /** A timer by which each multiplication takes a nanosecond. */
    private double byWork(ProductShape shape) {
        timed.add(shape);
        return 1e-9 * shape.work();
    }

    private TimeTable table(String machine, ProductTimer timer) {
        return new TimeTable(folder.resolve("times.txt"), machine, timer, log);
    }

    @Test
    void sizesBetweenTimedOnesAreInterpolated() {
        TimeTable table = table("a", this::byWork);

        assertThat(TimeTable.step(480)).isEqualTo(32);
        assertThat(table.seconds(FULL, 1, 96, 416)).isEqualTo(1e-9 * 8 * 96 * 416);
        assertThat(table.seconds(FULL, 1, 96, 430.5)).isCloseTo(1e-9 * 8 * 96 * 430.5, within(1e-15));
        assertThat(table.seconds(FULL, 1, 90.25, 430.5)).isCloseTo(1e-9 * 8 * 90.25 * 430.5, within(1e-15));
        assertThat(table.seconds(FULL, 1, 3, 480)).isCloseTo(1e-9 * 8 * 3 * 480, within(1e-15));
        assertThat(table.seconds(FULL, 1, 0, 480)).isZero();
        assertThat(timed).allSatisfy(shape -> {
            assertThat(shape.inner() % 8).isZero();
            assertThat(shape.columns() % 32).isZero();
        });
    }

    @Test
    void eachShapeIsTimedOnce() {
        TimeTable table = table("a", this::byWork);
        for (int i = 0; i < 3; i++) {
            for (int columns = 0; columns <= 480; columns += 7) {
                table.seconds(FULL, 1, 96, columns);
            }
        }

        assertThat(timed).doesNotHaveDuplicates().hasSize(15);
        assertThat(table.timed()).isEqualTo(15);
    }

    /** 352 columns take longer than 384. */
    @Test
    void aSizeThatIsSlowerThanALargerOneCountsAsTheLargerOne() {
        TimeTable table = table("a", shape -> shape.columns() == 352 ? 1 : byWork(shape));

        assertThat(table.seconds(FULL, 1, 96, 352)).isEqualTo(table.seconds(FULL, 1, 96, 384));
        assertThat(table.seconds(FULL, 1, 96, 320)).isLessThan(table.seconds(FULL, 1, 96, 352));
    }

    @Test
    void timesAreKeptForLaterRuns() {
        TimeTable first = table("a", this::byWork);
        double seconds = first.seconds(FULL, 1, 96, 416);
        first.save();
        timed.clear();

        assertThat(table("a", this::byWork).seconds(FULL, 1, 96, 416)).isEqualTo(seconds);
        assertThat(timed).isEmpty();
        assertThat(warnings).isEmpty();
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "",
                "something else",
                "onnx-prune product times 1: another\n",
                "onnx-prune product times 1: a\nMATRIX f32 0/0/0 1x8x96x480\n",
                "onnx-prune product times 1: a\nMATRIX f32 0/0/0 1x8x96x480 = soon\n",
                "onnx-prune product times 1: a\nMATRIX f32 0/0/0 1x8x96x480 = -1\n"
            })
    void aBrokenFileIsMadeAnew(String content) throws IOException {
        Path file = Files.writeString(folder.resolve("times.txt"), content);
        TimeTable table = table("a", this::byWork);
        table.seconds(FULL, 1, 96, 480);
        table.save();

        assertThat(warnings).hasSize(1).allMatch(text -> text.contains("measured again"));
        assertThat(timed).hasSize(1);
        assertThat(Files.readString(file))
                .startsWith("onnx-prune product times 1: a\n")
                .contains("1x8x96x480 = ");
    }

    @Test
    void aFileThatCannotBeWrittenIsTold() {
        TimeTable table = new TimeTable(folder.resolve("none/times.txt"), "a", this::byWork, log);
        table.seconds(FULL, 1, 96, 480);
        table.save();

        assertThat(warnings).singleElement().asString().contains("cannot be kept");
    }
}
