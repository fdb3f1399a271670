// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.device.HostDevice;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeOptions;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;

/** The speed of a machine is measured where the work will be done. */
@Tag("ort")
class SpeedTest {
    @Test
    void onTheCpuOneProductStandsForBothKinds() {
        Speed speed = Speed.of(TestModels.runtime());
        assertThat(speed.model()).isEqualTo(speed.algebra()).isGreaterThan(1e6);
    }

    @Test
    void onADeviceBothAreMeasured() {
        Speed speed = Speed.of(OnnxRuntime.openOn(new HostDevice(), RuntimeOptions.cpu()));
        assertThat(speed.model()).isNotEqualTo(speed.algebra()).isGreaterThan(1e6);
        assertThat(speed.algebra()).isGreaterThan(1e6);
    }
}
