// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.TokenRows;
import io.onnxprune.device.HostDevice;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Whole runs behind the binding that a GPU uses, with the host as the device, write the same models. */
@Tag("ort")
@Tag("slow")
class DeviceRunTest {
    private static final RuntimeOptions ONE_THREAD = RuntimeOptions.cpu(1);

    @TempDir
    private Path folder;

    @ParameterizedTest
    @ValueSource(strings = {"llm-pruner", "slimgpt", "auto"})
    void theSameModel(String method) throws IOException {
        Path rows = TokenRows.random(folder, 300);
        Path host = folder.resolve("host.onnx");
        Path device = folder.resolve("device.onnx");

        run(method, rows, host, OnnxRuntime.open(ONE_THREAD));
        try (OnnxRuntime runtime = OnnxRuntime.openOn(new HostDevice(), ONE_THREAD)) {
            run(method, rows, device, runtime);
        }

        assertThat(Files.mismatch(host, device)).isEqualTo(-1);
    }

    private void run(String method, Path rows, Path out, OnnxRuntime runtime) {
        Pruner.builder(TestModels.file("llama-gqa-d"))
                .output(out)
                .method(method)
                .ratio(0.2)
                .data(data -> data.calibration(rows, 1).samples(8).sequenceLength(32))
                .workFolder(folder.resolve("work"))
                .build()
                .run(runtime, ProgressListener.NONE);
    }
}
