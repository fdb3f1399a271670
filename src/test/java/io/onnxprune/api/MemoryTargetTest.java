// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.api;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.TestModels;
import io.onnxprune.dims.StateSize;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Graph;
import io.onnxprune.onnx.ModelReader;
import io.onnxprune.plan.Currency;
import io.onnxprune.plan.ParameterCount;
import java.nio.file.Path;
import org.junit.jupiter.api.Tag;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

/** The memory of files that were written: float32, float16 and 4-bit weights, experts, GQA, caches of other forms. */
@Tag("ort")
class MemoryTargetTest {
    private static final int CONTEXT = 200;

    @TempDir
    private Path folder;

    private static double memory(Graph graph, Structure structure) {
        return ParameterCount.storedBytes(graph) + StateSize.bytes(graph, CONTEXT, structure.analysis());
    }

    @ParameterizedTest
    @CsvSource({
        "stories-llama, global, 0.6",
        "stories-llama, local, 0.4",
        "llama-g16-e-fp16, global, 0.8",
        "llama-g16-e-int4, local, 0.85",
        "llama-gqa-d, local, 0.7",
        "mixtral-a, global, 0.7",
        "qwen3-moe-d, local, 0.75",
        "int4-experts, global, 0.9",
        "gpt2-g-merged, global, 0.8",
        "bloom-d, local, 0.8",
        "shared-kv, global, 0.85",
        "hybrid-conv, global, 0.85",
        "static-cache, local, 0.8"
    })
    void theFileIsAtOrBelowTheTargetByLessThanAUnit(String name, String scope, double share) {
        Structure structure = TestModels.structure(name);
        ParameterCount count = ParameterCount.of(structure, Currency.memory(CONTEXT));
        Path out = folder.resolve("small.onnx");
        double dense = Currency.memory(CONTEXT).amount(count.dense());
        long target = Math.round(share * dense);

        PruneReport report = Pruner.builder(TestModels.file(name))
                .output(out)
                .recipe(recipe -> recipe.method("magnitude")
                        .allocate("scope", scope)
                        .allocate("memory-target", Long.toString(target))
                        .allocate("context", Integer.toString(CONTEXT)))
                .build()
                .run(TestModels.runtime(), ProgressListener.NONE);

        double measured = memory(ModelReader.read(out).graph(), structure);
        double unit = structure.dimensions().stream()
                .filter(dimension -> report.plan().keep().containsKey(dimension.name()))
                .mapToDouble(dimension -> Currency.memory(CONTEXT).amount(count.unit(dimension)))
                .min()
                .orElseThrow();
        assertThat(memory(ModelReader.read(TestModels.file(name)).graph(), structure))
                .isEqualTo(dense);
        assertThat(measured).isBetween(target - unit, (double) target);
        ReachedTarget reached = report.sizes().reached().orElseThrow();
        assertThat(reached.measured()).hasValue(measured);
        assertThat(reached.asked()).isEqualTo((double) target);
        assertThat(reached.predicted()).isEqualTo(measured);
    }
}
