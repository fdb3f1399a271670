// SPDX-License-Identifier: Apache-2.0
package io.onnxprune;

import static org.assertj.core.api.Assertions.assertThat;

import io.onnxprune.ir.DType;
import io.onnxprune.ir.Floats;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.Outputs;
import io.onnxprune.runtime.Session;
import java.util.Arrays;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.Set;

/**
 * What ONNX Runtime computes for a model on inputs drawn from a seed, without its optimisations.
 *
 * @param outputs by name, in the order of the graph
 */
record SeededRun(Map<String, HostTensor> outputs) {
    private static final double ABSOLUTE = 1e-5;
    private static final double RELATIVE = 1e-4;

    /** Extents of axes that a model leaves open, in the order of their symbols. */
    private static final int[] EXTENTS = {2, 3, 5, 7, 4, 6};

    /**
     * Runs {@code model}.
     *
     * @param inputs declarations of at least the inputs of the model; the same ones get the same contents
     * @param bound integers are from 0 to {@code bound - 1}
     */
    static SeededRun of(Model model, List<ValueInfo> inputs, int bound, long seed) {
        Set<String> read = new HashSet<>();
        model.graph().givenInputs().forEach(input -> read.add(input.name()));
        Map<String, HostTensor> feeds = new LinkedHashMap<>();
        Map<String, Integer> extents = new LinkedHashMap<>();
        Random random = new Random(seed);
        for (ValueInfo input : inputs) {
            HostTensor tensor = random(input, extents, bound, random);
            if (read.contains(input.name())) {
                feeds.put(input.name(), tensor);
            }
        }
        List<String> names =
                model.graph().outputs().stream().map(ValueInfo::name).toList();
        Map<String, HostTensor> computed = new LinkedHashMap<>();
        try (Session session = TestModels.runtime().open(model, false);
                Outputs outputs = session.run(feeds, names)) {
            names.forEach(name -> computed.put(name, outputs.tensor(name)));
        }
        return new SeededRun(computed);
    }

    private static HostTensor random(ValueInfo input, Map<String, Integer> extents, int bound, Random random) {
        assertThat(input.shape()).as("the shape of input " + input.name()).isNotNull();
        long[] shape = input.shape().stream()
                .mapToLong(extent -> extent.isKnown()
                        ? extent.size()
                        : extents.computeIfAbsent(extent.symbol(), symbol -> EXTENTS[extents.size() % EXTENTS.length]))
                .toArray();
        int elements = (int) HostTensor.zeros(DType.INT8, shape).elements();
        if (!input.dtype().isFloat()) {
            int limit = input.dtype() == DType.BOOL ? 2 : bound;
            return HostTensor.ofIntegers(
                    input.dtype(),
                    shape,
                    random.ints(elements, 0, limit).asLongStream().toArray());
        }
        float[] values = new float[elements];
        for (int i = 0; i < elements; i++) {
            values[i] = (float) random.nextGaussian();
        }
        HostTensor tensor = HostTensor.zeros(input.dtype(), shape);
        Floats.encode(input.dtype(), values, elements, tensor.bytes());
        return tensor;
    }

    /** Requires that there is something to compare: an output with a finite number other than 0. */
    void requireContents() {
        assertThat(outputs.values())
                .as("outputs")
                .anyMatch(tensor -> doubles(tensor).length > 0
                        && Arrays.stream(doubles(tensor)).anyMatch(value -> value != 0 && Double.isFinite(value)));
    }

    /** Requires the same shapes and, but for rounding, the same numbers; the message has the largest difference. */
    void assertCloseTo(SeededRun expected) {
        expected.outputs.forEach((name, tensor) -> {
            HostTensor actual = outputs.get(name);
            assertThat(actual.toString()).as(name).isEqualTo(tensor.toString());
            double[] wanted = doubles(tensor);
            double[] found = doubles(actual);
            boolean exact = !tensor.dtype().isFloat();
            double worst = 0;
            String place = "";
            for (int i = 0; i < wanted.length; i++) {
                boolean same = Double.compare(wanted[i], found[i]) == 0;
                double allowed = exact ? 0 : ABSOLUTE + RELATIVE * Math.abs(wanted[i]);
                double excess = same ? 0 : Math.abs(found[i] - wanted[i]) - allowed;
                // NaN on one side only is worse than any number.
                excess = Double.isNaN(excess) ? Double.POSITIVE_INFINITY : excess;
                if (excess > worst) {
                    worst = excess;
                    place = "%s[%d] is %s, expected %s".formatted(name, i, found[i], wanted[i]);
                }
            }
            assertThat(place).isEmpty();
        });
    }

    private static double[] doubles(HostTensor tensor) {
        int elements = (int) tensor.elements();
        double[] values = new double[elements];
        float[] floats = tensor.dtype().isFloat() ? tensor.toFloats() : null;
        long[] integers = floats == null ? tensor.toLongs() : null;
        for (int i = 0; i < elements; i++) {
            values[i] = floats != null ? floats[i] : integers[i];
        }
        return values;
    }
}
