// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import io.onnxprune.calibrate.ActivationStore.Budget;
import io.onnxprune.calibrate.ActivationStore.Place;
import io.onnxprune.diag.UserException;
import io.onnxprune.runtime.HostTensor;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Stored activations are returned unchanged, from memory and from the file. */
class ActivationStoreTest {
    @TempDir
    private Path folder;

    @Test
    void anyOrderOfPutAndTake() {
        Random random = new Random(3);
        Map<Place, float[]> expected = new HashMap<>();
        try (ActivationStore store = new ActivationStore(new Budget(0, 400), folder)) {
            for (int step = 0; step < 2000; step++) {
                List<Place> keys = new ArrayList<>(expected.keySet());
                if (keys.size() < 5 || keys.size() < 40 && random.nextBoolean()) {
                    Place key = new Place("value" + random.nextInt(3), step);
                    float[] values = new float[1 + random.nextInt(3) * 7];
                    for (int i = 0; i < values.length; i++) {
                        values[i] = random.nextFloat();
                    }
                    store.put(key, HostTensor.ofFloat32(new long[] {values.length}, values));
                    expected.put(key, values);
                } else {
                    Place key = keys.get(random.nextInt(keys.size()));
                    assertThat(store.get(key).toHost().toFloats()).isEqualTo(expected.get(key));
                    if (random.nextBoolean()) {
                        assertThat(store.take(key).toHost().toFloats()).isEqualTo(expected.remove(key));
                    }
                }
            }
            assertThat(store.spilledBytes()).isPositive();
        }
        assertThat(folder).isEmptyDirectory();
    }

    /** A dropped value is not read, and its place in the file is reused. */
    @Test
    void dropping() {
        Place held = new Place("held", 0);
        Place first = new Place("spilled", 0);
        try (ActivationStore store = new ActivationStore(new Budget(0, 4), folder)) {
            store.put(held, HostTensor.ofFloat32(new long[] {1}, 1f));
            store.put(first, HostTensor.ofFloat32(new long[] {2}, 2f, 3f));
            store.drop(first);
            store.put(first, HostTensor.ofFloat32(new long[] {2}, 4f, 5f));
            assertThat(store.newlyRead()).isZero();
            assertThat(store.spilledBytes()).isEqualTo(8);

            assertThat(store.take(first).toHost().toFloats()).containsExactly(4f, 5f);
            assertThat(store.newlyRead()).isEqualTo(8);
            assertThat(store.newlyRead()).isZero();
            store.drop(held);
            store.put(held, HostTensor.ofFloat32(new long[] {1}, 6f));
            assertThat(store.get(held).toHost().toFloats()).containsExactly(6f);
            assertThat(store.newlyRead()).isZero();
        }
    }

    @Test
    void aFolderThatCannotBeWrittenIsNamed() throws IOException {
        Path file = Files.writeString(folder.resolve("file"), "");
        try (ActivationStore store = new ActivationStore(new Budget(0, 0), file)) {
            assertThatThrownBy(() -> store.put(new Place("x", 0), HostTensor.ofFloat32(new long[] {1}, 1f)))
                    .isInstanceOf(UserException.class)
                    .hasMessageContainingAll("cannot be written to " + file, "--work-dir");
        }
    }
}
