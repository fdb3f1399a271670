// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.HostTensor;
import java.nio.FloatBuffer;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Sums over many runs are as accurate as sums over few runs. */
@Tag("ort")
class WideSumTest {
    @TempDir
    private Path folder;

    @Test
    void smallTermsAddUp() {
        HostTensor sum = HostTensor.ofFloat32(new long[] {2}, 1 << 24, 0.5f);
        FloatBuffer values = sum.asFloats();
        WideSum wide = new WideSum(sum);
        for (int i = 1; i <= 1000; i++) {
            values.put(0, values.get(0) + 1);
            values.put(1, values.get(1) + 1);
            if (i % 10 == 0) {
                wide.absorb();
            }
        }
        values.put(1, 3);

        assertThat(wide.total()).isSameAs(sum);

        // The first ten were lost to rounding before the first move to float64.
        assertThat(values.get(0)).isCloseTo((1 << 24) + 990, within(2f));
        assertThat(values.get(1)).isEqualTo(1003.5f);
    }

    /** More batches than a float32 sum is used for. */
    @Test
    void manyBatchesYieldTheStatisticsOfFew() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> few = Gathered.randomRows(5, 6, 32, 3);
        List<long[]> many = new ArrayList<>();
        for (int i = 0; i < 2 * WideSum.RUNS + 2; i++) {
            many.add(few.get(i % few.size()));
        }
        Set<Tap> taps = new LinkedHashSet<>(Gathered.everyTap(model, 6, false));

        Gathered batched = Gathered.gather(model, many, taps, Gathered.AMPLE, folder);
        Gathered single = Gathered.gather(model, many, taps, Gathered.SCANT, folder);

        assertThat(single.messages().get(0)).contains(" 1 row at a time");
        assertThat(batched.messages().get(0)).doesNotContain(" 1 row at a time");
        taps.forEach(tap -> assertThat(
                        Gathered.distance(single.sums().get(tap), batched.sums().get(tap)))
                .as(tap.toString())
                .isLessThan(1e-5));
    }
}
