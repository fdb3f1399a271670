// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.device.HostDevice;
import io.onnxprune.ir.Model;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.nio.file.Path;
import java.util.List;
import java.util.Set;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/**
 * Runs whose weights, sums and activations stay in the memory of a device yield the same bits as runs on host tensors.
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

                assertThat(device.loss()).isEqualTo(host.loss());
                assertThat(device.messages()).isEqualTo(host.messages());
                taps.forEach(tap -> assertThat(device.sums().get(tap))
                        .as(tap.toString())
                        .isEqualTo(host.sums().get(tap)));
            }
        }
    }
}
