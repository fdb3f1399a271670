// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.pass;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.Place;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.lower.ProductPrecision;
import io.onnxprune.runtime.DeviceWeights;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.RuntimeTensor;
import io.onnxprune.runtime.Session;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * The speed of a machine, in floating-point operations a second.
 *
 * @param model in the model's own graph
 * @param algebra in dense algebra of float64
 */
record Speed(double model, double algebra) {
    private static final long PROBE_NANOS = 200_000_000;
    private static final int HOST_PROBE = 512;
    /** A GPU is far from its speed with smaller matrices. */
    private static final int DEVICE_PROBE = 4096;

    private static final long IR_VERSION = 8;
    private static final long OPSET = 13;

    /**
     * The share of the speed of a single product that a whole graph reaches on a device, where norms, activation
     * functions and attention wait for memory.
     */
    private static final double GRAPH_SHARE = 0.5;

    /**
     * Measures products of matrices. On the CPU one product stands for both kinds: a graph multiplies in float32, but
     * spends as much time on other operators.
     */
    static Speed of(OnnxRuntime runtime) {
        if (runtime.device().isEmpty()) {
            double product = ofProduct(HOST_PROBE);
            return new Speed(product, product);
        }
        int n = runtime.device().get().isHost() ? HOST_PROBE : DEVICE_PROBE;
        return new Speed(GRAPH_SHARE * ofGraph(runtime, n), ofProduct(n));
    }

    /** The time that so much work takes. */
    double seconds(Cost cost) {
        return cost.model() / model + cost.algebra() / algebra;
    }

    private static double ofProduct(int n) {
        try (Matrix a = Place.forWork(n, 2L * n * n).zeros(n, n)) {
            for (int i = 0; i < n; i++) {
                a.set(i, i, 1);
            }
            return rate(n, () -> {
                try (Matrix product = Blas.product(a, a)) {
                    // A GPU has finished when an element is read.
                    product.get(0, 0);
                }
            });
        }
    }

    private static double ofGraph(OnnxRuntime runtime, int n) {
        long[] shape = {n, n};
        Graph graph = new Graph(
                "probe",
                List.of(declared("a"), declared("b")),
                List.of(declared("c")),
                List.of(),
                Map.of(),
                List.of(Node.of("product", "MatMul", List.of("a", "b"), List.of("c"), Map.of())),
                new byte[0]);
        Model model = ProductPrecision.of(
                new Model(IR_VERSION, Map.of("", OPSET), graph, Map.of(), false, null, new byte[0]),
                Map.of(),
                Set.of(),
                runtime.options());
        RuntimeTensor a = runtime.zeros(DType.FLOAT, shape);
        RuntimeTensor c = runtime.zeros(DType.FLOAT, shape);
        try (DeviceWeights none = runtime.weights(0);
                Session session = runtime.open(model, none)) {
            return rate(
                    n,
                    () -> session.runInto(Map.of("a", a, "b", a), Map.of("c", c), List.of())
                            .close());
        } finally {
            a.release();
            c.release();
        }
    }

    private static ValueInfo declared(String name) {
        return new ValueInfo(name, DType.FLOAT, null, new byte[0]);
    }

    /** The best of several products of n x n matrices: other load on the machine comes and goes. */
    private static double rate(int n, Runnable product) {
        double best = Double.POSITIVE_INFINITY;
        for (long end = System.nanoTime() + PROBE_NANOS; System.nanoTime() < end; ) {
            long begun = System.nanoTime();
            product.run();
            best = Math.min(best, (System.nanoTime() - begun) * 1e-9);
        }
        return 2.0 * n * n * n / best;
    }
}
