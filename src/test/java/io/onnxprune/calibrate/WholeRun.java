// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.TestModels;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/** Values of a run of an entire lowered model, over all rows at once and without cuts. */
final class WholeRun {
    private WholeRun() {}

    /** @param weights new contents of initializers by name */
    static Map<String, float[]> values(
            Calibrator calibrator, Map<String, Tensor> weights, List<String> values, List<long[]> tokens) {
        Model lowered = calibrator.program().model();
        Map<String, Tensor> initializers = new LinkedHashMap<>(lowered.graph().initializers());
        initializers.putAll(weights);
        List<ValueInfo> outputs = values.stream()
                .distinct()
                .map(value -> new ValueInfo(value, DType.UNDEFINED, null, new byte[0]))
                .toList();
        Graph graph = lowered.graph()
                .withInitializers(initializers)
                .withInterface(lowered.graph().inputs(), outputs);
        Batches rows = new Batches(
                calibrator.flow(List.of()),
                calibrator.graph(),
                tokens,
                List.of(IntStream.range(0, tokens.size()).toArray()));
        Map<String, HostTensor> feeds = rows.inputs(0);
        Map<String, float[]> found = new HashMap<>();
        try (Session session = TestModels.runtime().open(lowered.withGraph(graph), false);
                Outputs computed = session.run(feeds, values)) {
            values.forEach(value -> found.put(value, computed.tensor(value).toFloats()));
        }
        return found;
    }
}
