// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.verify;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.Slicer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Map;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** Verification detects errors in a pruned model. */
@Tag("ort")
class WrongSlicesTest {
    private static final double TOLERANCE = 1e-4;

    @TempDir
    private Path folder;

    @Test
    void theRightUnitsAgree() {
        assertThat(difference(plan(1, 2), plan(1, 2), 1)).isLessThan(TOLERANCE);
    }

    @Test
    void otherUnitsThanPlannedDiffer() {
        assertThat(difference(plan(1, 2), plan(1, 3), 1)).isGreaterThan(1e-2);
    }

    @ParameterizedTest
    @ValueSource(doubles = {0, 3, Double.NaN})
    void oneWrongWeightDiffers(double factor) {
        assertThat(difference(plan(1, 2), plan(1, 2), factor)).isGreaterThan(10 * TOLERANCE);
    }

    private static Plan plan(int... heads) {
        return new Plan(
                "", Map.of("heads.0", heads, "ffn.1", IntStream.range(5, 60).toArray()), null, null);
    }

    /** Slices by one plan, scales the largest weight of one matrix, and verifies against another plan. */
    private double difference(Plan planned, Plan done, double factor) {
        Structure structure = TestModels.structure("stories-llama");
        Dim.Keep keep = done.keep(structure);
        Model sliced = Slicer.slice(structure, keep, Map.of());
        Path file = folder.resolve("model.onnx");
        ModelWriter.write(factor == 1 ? sliced : damaged(sliced, factor), file, false);
        return Verifier.compare(new Verifier.Masked(structure, planned, Map.of()), file, TestModels.runtime(), 1e-4, 1)
                .relative();
    }

    private static Model damaged(Model model, double factor) {
        Map<String, Tensor> initializers = new LinkedHashMap<>(model.graph().initializers());
        Map.Entry<String, Tensor> weight = initializers.entrySet().stream()
                .filter(entry -> entry.getValue().dtype().isFloat()
                        && entry.getValue().rank() == 2
                        && entry.getValue().dim(0) < entry.getValue().dim(1))
                .findFirst()
                .orElseThrow();
        Tensor tensor = weight.getValue();
        ByteBuffer bytes = ByteBuffer.wrap(tensor.bytes().toArray()).order(ByteOrder.LITTLE_ENDIAN);
        int largest = IntStream.range(0, bytes.capacity() / 4)
                .reduce((a, b) -> Math.abs(bytes.getFloat(4 * a)) >= Math.abs(bytes.getFloat(4 * b)) ? a : b)
                .orElseThrow();
        bytes.putFloat(4 * largest, (float) (bytes.getFloat(4 * largest) * factor));
        initializers.put(weight.getKey(), Tensor.of(tensor.dtype(), tensor.shape(), Bytes.of(bytes)));
        return model.withGraph(model.graph().withInitializers(initializers));
    }
}
