// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.ir.Widening;
import io.onnxprune.onnx.ModelWriter;
import io.onnxprune.runtime.CpuForms;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * A cheap copy of a program with the same shapes everywhere. Half precision is widened, one branch of each If is
 * inlined, every value is an output, and there are no weights. Products with large constant matrices become outer
 * products of the same shape. Other large constants are generated at run time by ConstantOfShape.
 */
final class TraceGraph {
    private static final int LARGE = 1024;

    private final Program program;
    private final boolean thenBranch;
    private final Map<Value, String> names = new HashMap<>();
    private final Map<String, Value> traced = new LinkedHashMap<>();
    private final Map<String, Tensor> initializers = new LinkedHashMap<>();
    private final List<Node> nodes = new ArrayList<>();
    private int fresh;

    private TraceGraph(Program program, boolean thenBranch) {
        this.program = program;
        this.thenBranch = thenBranch;
        for (Value input : program.inputs()) {
            names.put(input, input.name());
        }
        for (Op op : program.ops()) {
            if (op.branch().stream().allMatch(branch -> branch.taken() == thenBranch)) {
                add(op);
            }
        }
    }

    /** One graph, or two for a program with If nodes: one with every then-branch, one with every else-branch. */
    static List<TraceGraph> variants(Program program) {
        boolean branches = program.ops().stream().anyMatch(op -> op.node().is("If"));
        return branches
                ? List.of(new TraceGraph(program, true), new TraceGraph(program, false))
                : List.of(new TraceGraph(program, true));
    }

    /** The traced values by output name. */
    Map<String, Value> valueNames() {
        return traced;
    }

    byte[] serialized() {
        List<ValueInfo> outputs = traced.keySet().stream()
                .map(name -> new ValueInfo(name, DType.UNDEFINED, null, new byte[0]))
                .toList();
        List<ValueInfo> inputs = program.inputs().stream()
                .map(value -> value.info().withDType(Widening.widen(value.info().dtype())))
                .toList();
        Graph graph = new Graph("trace", inputs, outputs, List.of(), initializers, nodes, new byte[0]);
        return ModelWriter.skeleton(CpuForms.of(program.model().withGraph(graph)), tensor -> false);
    }

    /**
     * Extents of graph input axes that are declared symbolic but fixed by their consumer: the head size of a fused
     * attention's cache.
     */
    Map<String, Long> extentHints() {
        Map<String, Long> hints = new HashMap<>();
        for (Op op : program.ops()) {
            long headSize = FusedAttentionRules.headSize(op);
            for (Value input : op.inputs()) {
                if (headSize > 0 && input != null && input.producer() == null && input.constant() == null) {
                    hints.put(input.name(), headSize);
                }
            }
        }
        return hints;
    }

    private void add(Op op) {
        Node node = op.node();
        if (op.outputs().stream().allMatch(value -> value != null && stored(value) != null)) {
            return;
        }
        if (node.is("If")) {
            List<Value> yields = program.branchOutputs(node).get(thenBranch ? 0 : 1);
            for (int i = 0; i < yields.size(); i++) {
                emit("Identity", List.of(operand(yields.get(i))), output(op.output(i)), Map.of());
            }
            return;
        }
        Tensor source = stored(op.input(0));
        if (source != null && isGenerated(source) && (node.is("DequantizeLinear") || node.is("Cast"))) {
            // Types of less than a byte cannot be generated, but what they are converted to can.
            DType type = node.is("Cast") ? DType.of((int) node.intAttribute("to", 0)) : dequantised(op);
            String filled = filled(Widening.widen(type), source.shape());
            emit("Identity", List.of(filled), output(op.output(0)), Map.of());
            return;
        }
        Tensor weight = stored(op.input(1));
        if (node.is("MatMul") && isLarge(weight) && weight.rank() == 2) {
            outerProduct(op, weight.dtype(), weight.dim(0), weight.dim(1));
        } else if (node.is("Gemm") && isLarge(weight) && node.intAttribute("transA", 0) == 0) {
            int rows = (int) node.intAttribute("transB", 0);
            outerProduct(op, weight.dtype(), weight.dim(rows), weight.dim(1 - rows));
        } else if (node.is("MatMulNBits")) {
            outerProduct(op, DType.FLOAT, node.intAttribute("K", 0), node.intAttribute("N", 0));
        } else if (node.is("Gather")
                && isLarge(stored(op.input(0)))
                && stored(op.input(0)).dtype().isFloat()
                && stored(op.input(0)).rank() == 2
                && node.intAttribute("axis", 0) == 0) {
            Tensor table = stored(op.input(0));
            lookUp(op, Widening.widen(table.dtype()), table.dim(1));
        } else {
            List<String> inputs = op.inputs().subList(0, node.inputs().size()).stream()
                    .map(value -> value == null ? "" : operand(value))
                    .toList();
            List<String> outputs = op.outputs().stream()
                    .map(value -> value == null ? "" : output(value))
                    .toList();
            nodes.add(Widening.widen(node).withInputs(inputs).withOutputs(outputs));
        }
    }

    private static boolean isGenerated(Tensor tensor) {
        return tensor.dtype().isFloat() ? tensor.elements() >= LARGE : tensor.elements() >= LARGE * LARGE;
    }

    private static DType dequantised(Op op) {
        Tensor scale = stored(op.input(1));
        return scale == null || !scale.dtype().isFloat() ? DType.FLOAT : scale.dtype();
    }

    private static boolean isLarge(Tensor tensor) {
        return tensor != null && tensor.elements() >= LARGE;
    }

    /**
     * The constant of a value that is a constant or its cast to float32; null for any other value. Such a value is not
     * computed in a trace.
     */
    static Tensor stored(Value value) {
        if (value == null || value.constant() != null) {
            return value == null ? null : value.constant();
        }
        Op producer = value.producer();
        Value source = producer != null && producer.node().is("Cast") ? producer.input(0) : null;
        boolean widened = source != null
                && source.constant() != null
                && source.constant().dtype().isFloat()
                && producer.node().intAttribute("to", 0)
                        == Widening.widen(source.constant().dtype()).code();
        return widened ? source.constant() : null;
    }

    /** Replaces x[.., K] · W[K, N] by a value of the same shape: (x · c[K, 1]) ⊗ c[N]. */
    private void outerProduct(Op op, DType dtype, long rows, long columns) {
        String column = name();
        DType wide = Widening.widen(dtype);
        emit("MatMul", List.of(operand(op.input(0)), filled(wide, rows, 1)), column, Map.of());
        emit("Mul", List.of(column, filled(wide, columns)), output(op.output(0)), Map.of());
    }

    /** Replaces a look-up in W[V, D] by a value of the same shape. */
    private void lookUp(Op op, DType dtype, long columns) {
        String cast = name();
        String column = name();
        emit("Cast", List.of(operand(op.input(1))), cast, Map.of("to", new Attribute.Int(dtype.code())));
        if (program.model().opset() >= 13) {
            emit("Unsqueeze", List.of(cast, indices(-1)), column, Map.of());
        } else {
            emit("Unsqueeze", List.of(cast), column, Map.of("axes", new Attribute.Ints(List.of(-1L))));
        }
        emit("Mul", List.of(column, filled(dtype, columns)), output(op.output(0)), Map.of());
    }

    private String operand(Value value) {
        Tensor tensor = stored(value);
        if (tensor == null) {
            return names.get(value);
        }
        if (isGenerated(tensor)) {
            return filled(Widening.widen(tensor.dtype()), tensor.shape());
        }
        return names.computeIfAbsent(value, key -> {
            String name = name();
            initializers.put(name, Widening.widen(tensor));
            return name;
        });
    }

    /** A constant that is generated at run time. Its value is 0.5, so that logarithms and quotients stay finite. */
    private String filled(DType dtype, long... shape) {
        Tensor value = dtype.isFloat()
                ? Tensor.ofFloats(dtype, new long[] {1}, 0.5f)
                : Tensor.of(dtype, new long[] {1}, io.onnxprune.ir.Bytes.of(java.nio.ByteBuffer.allocate((int)
                        dtype.bytes(1))));
        String name = name();
        emit("ConstantOfShape", List.of(indices(shape)), name, Map.of("value", new Attribute.Constant(value)));
        return name;
    }

    private String indices(long... values) {
        String name = name();
        initializers.put(name, Tensor.ofIndices(DType.INT64, new long[] {values.length}, values));
        return name;
    }

    private String output(Value value) {
        String name = name();
        names.put(value, name);
        traced.put(name, value);
        return name;
    }

    private void emit(String op, List<String> inputs, String output, Map<String, Attribute> attributes) {
        nodes.add(Node.of("", op, inputs, List.of(output), attributes));
    }

    private String name() {
        return "onnx_prune_trace_" + fresh++;
    }
}
