// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.device;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.diag.UserException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.Random;
import java.util.function.IntFunction;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

class DeviceTest {
    static Stream<Device> devices() {
        return Stream.of(new HostDevice(), StandInCuda.open());
    }

    @ParameterizedTest
    @MethodSource("devices")
    void bytesComeBack(Device device) {
        byte[] bytes = new byte[3_000_001];
        new Random(1).nextBytes(bytes);
        for (IntFunction<ByteBuffer> kind : Stream.<IntFunction<ByteBuffer>>of(
                        ByteBuffer::allocate, ByteBuffer::allocateDirect)
                .toList()) {
            long first = device.allocate(bytes.length);
            long second = device.allocate(bytes.length);
            // A buffer's remaining part counts, not its beginning.
            ByteBuffer from = kind.apply(bytes.length + 5).position(5);
            from.duplicate().put(bytes);
            ByteBuffer to = kind.apply(bytes.length + 7).position(7);

            device.write(first, from.asReadOnlyBuffer());
            device.copy(first, second, bytes.length);
            device.clear(first, bytes.length);
            device.clear(second + 100, 10);
            device.read(second, to);

            assertThat(from.position()).isEqualTo(5);
            assertThat(to.position()).isEqualTo(7);
            byte[] expected = bytes.clone();
            Arrays.fill(expected, 100, 110, (byte) 0);
            byte[] found = new byte[bytes.length];
            to.get(found);
            assertThat(found).isEqualTo(expected);
            device.read(first, ByteBuffer.wrap(found));
            assertThat(found).containsOnly(0);
            device.free(first);
            device.free(second);
        }
    }

    @ParameterizedTest
    @MethodSource("devices")
    void nothingIsCopiedFromAnEmptyBuffer(Device device) {
        long address = device.allocate(0);

        device.write(address, ByteBuffer.allocate(0));
        device.read(address, ByteBuffer.allocateDirect(0));
        device.copy(address, address, 0);

        assertThat(address).isNotZero();
        device.free(address);
    }

    @ParameterizedTest
    @MethodSource("devices")
    void memoryIsCounted(Device device) {
        assertThat(device.freeBytes()).isBetween(1L, device.totalBytes());
        assertThatThrownBy(() -> device.allocate(1L << 60))
                .isInstanceOf(UserException.class)
                .hasMessageMatching("out of memory on .*: 1152921504606846976 bytes are requested, and \\d+ of \\d+ are"
                        + " free; lower --device-memory, --samples or --seq-len");
    }

    @Test
    void namesAreThoseOfTheMachine() {
        assertThat(new HostDevice().name()).isEqualTo("host memory");
        assertThat(new HostDevice().isHost()).isTrue();
        assertThat(StandInCuda.open().isHost()).isFalse();
        assertThat(StandInCuda.open()).isSameAs(CudaDevice.open(0));
        StandInCuda.assumeStandIn();
        assertThat(StandInCuda.open().name()).isEqualTo("Stand-in 0");
    }

    @Test
    void aWrongNumberIsNamed() {
        StandInCuda.open();
        assertThatThrownBy(() -> CudaDevice.open(77))
                .isInstanceOf(UserException.class)
                .hasMessage("there is no CUDA device 77 (CUDA error 101: invalid device ordinal); choose another with"
                        + " --device, or use --provider cpu");
    }

    @Test
    void failuresSayWhatToDo() {
        assertThat(CudaFailures.open(0, 35, "text"))
                .hasMessageStartingWith("there is no CUDA device: the NVIDIA driver is missing");
        assertThat(CudaFailures.open(0, 100, "text")).hasMessageContaining("nvidia-smi");
        assertThat(CudaFailures.open(1, 46, "text")).hasMessageContaining("CUDA device 1 cannot be used");
        assertThat(CudaFailures.version(11080, 12000)).hasMessageStartingWith("CUDA 11.8 is too old, 12.0 or newer");
        assertThat(CudaFailures.call("cudaMemcpy", "NVIDIA H200", 719, "text"))
                .hasMessageStartingWith("NVIDIA H200 stopped working: cudaMemcpy failed (CUDA error 719: text)");
        assertThat(CudaFailures.library("libcudart.so.13", new UnsatisfiedLinkError("no\nfile")))
                .hasMessageStartingWith("the CUDA libraries are not found: libcudart.so.13 cannot be loaded (no file)");
    }
}
