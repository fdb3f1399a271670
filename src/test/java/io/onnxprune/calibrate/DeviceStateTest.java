// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import io.onnxprune.TestModels;
import io.onnxprune.device.HostDevice;
import io.onnxprune.device.LimitedDevice;
import io.onnxprune.diag.OutOfMemoryException;
import io.onnxprune.dims.Role;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Runs whose weights, sums and activations stay in the memory of a device yield the same bits as runs on host tensors, but for experts.
 * The device is the host here, behind the same binding as a GPU.
 */
@Tag("ort")
@Tag("slow")
class DeviceStateTest {
    private static final int LENGTH = 9;
    private static final RuntimeOptions ONE_THREAD = RuntimeOptions.cpu(1);

    @TempDir
    private Path folder;

    static List<String> models() {
        return TestModels.names();
    }

    @ParameterizedTest
    @MethodSource("models")
    void theSameBits(String name) {
        Model model = ModelReader.read(TestModels.file(name));
        List<long[]> rows = Gathered.randomRows(3, LENGTH, 32, 7);
        for (boolean gradients : new boolean[] {false, true}) {
            Set<Tap> taps = Gathered.everyTap(model, LENGTH, gradients);
            for (long memory : new long[] {Gathered.AMPLE, Gathered.SCANT}) {
                Gathered host = Gathered.gather(model, rows, taps, memory, folder, OnnxRuntime.open(ONE_THREAD));
                Gathered device = Gathered.gather(
                        model, rows, taps, memory, folder, OnnxRuntime.openOn(new HostDevice(), ONE_THREAD));

                assertThat(device.messages()).isEqualTo(host.messages());
                if (hasExperts(model)) {
                    assertNearlyEqual(device, host, taps);
                } else {
                    assertThat(device.loss()).isEqualTo(host.loss());
                    taps.forEach(tap -> assertThat(device.sums().get(tap))
                            .as(tap.toString())
                            .isEqualTo(host.sums().get(tap)));
                }
            }
        }
    }

    private static boolean hasExperts(Model model) {
        return TestModels.structure(model).dimensions().stream().anyMatch(found -> found.role() == Role.EXPERTS);
    }

    /**
     * ONNX Runtime's kernel for a product of one row adds in another order if the matrix is an input of the graph, as it is
     * on a device, and no constant. An expert may get a single token.
     */
    private static void assertNearlyEqual(Gathered device, Gathered host, Set<Tap> taps) {
        assertThat(device.loss()).containsExactly(host.loss(), within(1e-5));
        taps.forEach(tap -> assertThat(
                        Gathered.distance(device.sums().get(tap), host.sums().get(tap)))
                .as(tap.toString())
                .isLessThan(1e-5));
    }

    /** A device with too little memory for the whole model gets smaller segments, and the user is told. */
    @Test
    void tooLittleMemoryMakesSegmentsSmaller() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(3, LENGTH, 32, 7);
        Set<Tap> taps = Gathered.everyTap(model, LENGTH, true);
        LimitedDevice device = new LimitedDevice(14_000_000);

        Gathered found =
                Gathered.gather(model, rows, taps, Gathered.AMPLE, folder, OnnxRuntime.openOn(device, ONE_THREAD));
        Gathered expected = Gathered.gather(model, rows, taps, Gathered.AMPLE, folder);

        assertThat(found.messages())
                .anyMatch(line -> line.contains("the run starts again with") && line.contains("in smaller segments"));
        taps.forEach(tap -> assertThat(
                        Gathered.distance(found.sums().get(tap), expected.sums().get(tap)))
                .as(tap.toString())
                .isLessThan(1e-4));
        assertThat(device.used()).isZero();
    }

    @Test
    void farTooLittleMemoryIsAnError() {
        Model model = ModelReader.read(TestModels.file("stories-llama"));
        List<long[]> rows = Gathered.randomRows(3, LENGTH, 32, 7);
        Set<Tap> taps = Gathered.everyTap(model, LENGTH, true);
        LimitedDevice device = new LimitedDevice(100_000);
        OnnxRuntime runtime = OnnxRuntime.openOn(device, ONE_THREAD);

        assertThatThrownBy(() -> Gathered.gather(model, rows, taps, Gathered.AMPLE, folder, runtime))
                .isInstanceOf(OutOfMemoryException.class)
                .hasMessageContainingAll("out of memory on limited memory", "--device-memory", "(segment 1 of ");
        assertThat(device.used()).isZero();
    }
}
