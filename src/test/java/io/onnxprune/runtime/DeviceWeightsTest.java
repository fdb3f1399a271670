// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.runtime;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.device.LimitedDevice;
import io.onnxprune.diag.OutOfMemoryException;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Tensor;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

/** Weights on a device are shared by sessions, kept within a budget, and given back. */
class DeviceWeightsTest {
    private static final long WEIGHT = 1000 * Float.BYTES;

    private final Tensor first = Tensor.ofFloats(DType.FLOAT, new long[] {1000}, new float[1000]);
    private final Tensor second = Tensor.ofFloats(DType.FLOAT, new long[] {1000}, new float[1000]);

    @Test
    void sessionsShareOneCopyAndTheBudgetKeepsIt() {
        LimitedDevice device = new LimitedDevice(10 * WEIGHT);
        try (DeviceWeights weights = new DeviceWeights(device, WEIGHT)) {
            Map<String, DeviceTensor> one = weights.acquire(Map.of("w", first));
            Map<String, DeviceTensor> other = weights.acquire(Map.of("v", first));
            assertThat(other.get("v")).isSameAs(one.get("w"));
            assertThat(device.used()).isEqualTo(WEIGHT);

            weights.release(List.of(first));
            weights.release(List.of(first));
            assertThat(device.used()).isEqualTo(WEIGHT);

            weights.acquire(Map.of("w", second));
            weights.release(List.of(second));
            assertThat(device.used()).isEqualTo(WEIGHT);
        }
        assertThat(device.used()).isZero();
    }

    /** Some weights of a session fit, the next one does not. */
    @Test
    void whatFitsInPartIsGivenBack() {
        LimitedDevice device = new LimitedDevice(WEIGHT + 1);
        Map<String, Tensor> both = new LinkedHashMap<>();
        both.put("a", first);
        both.put("b", second);
        try (DeviceWeights weights = new DeviceWeights(device, 0)) {
            assertThatThrownBy(() -> weights.acquire(both)).isInstanceOf(OutOfMemoryException.class);
            assertThat(device.used()).isZero();
        }
    }
}
