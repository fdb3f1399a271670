// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.latency;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.latency.ProductShape.Form;
import io.onnxprune.runtime.HostTensor;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.runtime.Session;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Times products on ONNX Runtime, each in a graph of its own. The graph has the product several times with different operands, so
 * that the start of a run hardly counts and small weights are not only in the nearest cache. The time is the lower
 * quartile of runs: other work on the machine only adds time.
 */
final class GraphTimer implements ProductTimer {
    private static final long IR_VERSION = 8;
    private static final Map<String, Long> OPSETS = Map.of("", 14L, "com.microsoft", 1L);

    /** Multiplications, and bytes of operands, of one run: a few milliseconds. */
    private static final double RUN_WORK = 1e8;

    private static final double RUN_BYTES = 32e6;
    private static final int MOST_COPIES = 32;

    private static final int WARM_UP = 3;
    private static final int LEAST_RUNS = 7;
    private static final long ENOUGH_NANOS = 60_000_000;

    private final OnnxRuntime runtime;

    GraphTimer(OnnxRuntime runtime) {
        this.runtime = runtime;
    }

    @Override
    public double seconds(ProductShape shape) {
        int copies = copies(shape);
        Map<String, HostTensor> feeds = feeds(shape, copies);
        List<String> outputs = names("y", copies);
        try (Session session = runtime.open(model(shape, copies), true)) {
            for (int i = 0; i < WARM_UP; i++) {
                session.run(feeds, outputs).close();
            }
            List<Long> times = new ArrayList<>();
            long begun = System.nanoTime();
            while (times.size() < LEAST_RUNS || System.nanoTime() - begun < ENOUGH_NANOS) {
                long start = System.nanoTime();
                session.run(feeds, outputs).close();
                times.add(System.nanoTime() - start);
            }
            times.sort(null);
            return times.get(times.size() / 4) * 1e-9 / copies;
        }
    }

    private static int copies(ProductShape shape) {
        double bytes = 4.0 * shape.batch() * shape.inner() * shape.columns();
        double most = Math.min(RUN_WORK / shape.work(), RUN_BYTES / bytes);
        return (int) Math.max(1, Math.min(MOST_COPIES, most));
    }

    private static List<String> names(String letter, int count) {
        List<String> names = new ArrayList<>();
        for (int i = 0; i < count; i++) {
            names.add(letter + i);
        }
        return names;
    }

    private static DType type(ProductShape shape) {
        return shape.operand().half() ? DType.FLOAT16 : DType.FLOAT;
    }

    private static Map<String, HostTensor> feeds(ProductShape shape, int copies) {
        Map<String, HostTensor> feeds = new LinkedHashMap<>();
        boolean activations = shape.isOfActivations();
        long[] left = activations
                ? new long[] {shape.batch(), shape.rows(), shape.inner()}
                : new long[] {shape.rows(), shape.inner()};
        feeds.put("a", tensor(type(shape), left));
        if (activations) {
            long[] right = {shape.batch(), shape.inner(), shape.columns()};
            names("b", copies).forEach(name -> feeds.put(name, tensor(type(shape), right)));
        }
        return feeds;
    }

    private static HostTensor tensor(DType type, long[] shape) {
        return new HostTensor(type, shape, filled(type.bytes(Tensor.elements(shape))));
    }

    /** Memory that is not all one page of zeros; a small number in every floating-point type. */
    private static ByteBuffer filled(long bytes) {
        ByteBuffer buffer = ByteBuffer.allocateDirect(Math.toIntExact(bytes));
        while (buffer.remaining() >= Integer.BYTES) {
            buffer.putInt(0x24242424);
        }
        while (buffer.hasRemaining()) {
            buffer.put((byte) 0x24);
        }
        return buffer.flip();
    }

    private static Model model(ProductShape shape, int copies) {
        Map<String, Tensor> weights = new LinkedHashMap<>();
        List<Node> nodes = new ArrayList<>();
        List<ValueInfo> inputs = new ArrayList<>(List.of(declared("a", type(shape))));
        List<ValueInfo> outputs = new ArrayList<>();
        for (int i = 0; i < copies; i++) {
            String b = "b" + i;
            if (shape.isOfActivations()) {
                inputs.add(declared(b, type(shape)));
            } else if (shape.operand().form() == Form.MATRIX) {
                weights.put(b, weight(type(shape), shape.inner(), shape.columns()));
            }
            boolean scores = shape.operand().form() == Form.SCORES;
            nodes.add(
                    shape.operand().form() == Form.BLOCKS
                            ? blocks(shape, i, weights)
                            : Node.of(
                                    "product" + i,
                                    "MatMul",
                                    List.of("a", b),
                                    List.of((scores ? "p" : "y") + i),
                                    Map.of()));
            if (scores) {
                nodes.add(Node.of("softmax" + i, "Softmax", List.of("p" + i), List.of("y" + i), Map.of()));
            }
            outputs.add(declared("y" + i, type(shape)));
        }
        Graph graph = new Graph("product", inputs, outputs, List.of(), weights, nodes, new byte[0]);
        return new Model(IR_VERSION, OPSETS, graph, Map.of(), false, null, new byte[0]);
    }

    /** A product with packed blocks, as contrib_ops MatMulNBits of ONNX Runtime defines them. */
    private static Node blocks(ProductShape shape, int copy, Map<String, Tensor> weights) {
        ProductShape.Operand operand = shape.operand();
        long inRow = (shape.inner() + operand.block() - 1) / operand.block();
        weights.put(
                "b" + copy,
                weight(DType.UINT8, shape.columns(), inRow, (long) operand.block() * operand.bits() / Byte.SIZE));
        weights.put("s" + copy, weight(type(shape), shape.columns() * inRow));
        return new Node(
                "product" + copy,
                "com.microsoft",
                "MatMulNBits",
                List.of("a", "b" + copy, "s" + copy),
                List.of("y" + copy),
                Map.of(
                        "K", new Attribute.Int(shape.inner()),
                        "N", new Attribute.Int(shape.columns()),
                        "bits", new Attribute.Int(operand.bits()),
                        "block_size", new Attribute.Int(operand.block()),
                        "accuracy_level", new Attribute.Int(operand.accuracy())),
                new byte[0]);
    }

    private static Tensor weight(DType type, long... shape) {
        return Tensor.of(type, shape, Bytes.of(filled(type.bytes(Tensor.elements(shape)))));
    }

    private static ValueInfo declared(String name, DType type) {
        return new ValueInfo(name, type, null, new byte[0]);
    }
}
