// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Bytes;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.ir.ValueInfo.Extent;
import io.onnxprune.ir.Widening;
import java.nio.ByteBuffer;
import java.util.Collection;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/**
 * Adds optional inputs for low-rank adapters (LoRA) to a model: beside a linear layer x·W the model also computes
 * (x·A)·B, where A and B are optional inputs. Their defaults have rank 0, with which the model's results and speed do
 * not change.
 *
 * @param model the model with the inputs
 * @param inputs names of the inputs of each linear layer
 */
public record AdapterInputs(Model model, Map<Place, Names> inputs) {
    /** IR version from which on inputs with an initializer are optional (ONNX IR specification). */
    private static final long OPTIONAL_INPUTS = 4;

    private static final String RANK = "lora_rank";

    /**
     * The adapter inputs of a linear layer. They are float32, and are cast when the model computes in half precision,
     * because ONNX Runtime before 1.30 crashes on optional half-precision initializers (its pull request 32143).
     * Beside a float64 layer they are float64.
     *
     * @param down name of A, [n, any rank]
     * @param up name of B, [that rank, outputs]
     * @param dtype element type of both
     */
    public record Names(String down, String up, DType dtype) {}

    /**
     * A linear layer.
     *
     * @param name prefix of the names of its inputs
     * @param ops the operator applications that compute it, with x as first input: one, or one for each branch of an
     *     If that has it
     * @param inputs number of input channels, the width of x
     * @param outputs number of output channels
     */
    public record Place(String name, List<Op> ops, int inputs, int outputs) {
        public Place {
            ops = List.copyOf(ops);
        }
    }

    /** Adds adapter inputs beside the given linear layers of the model of {@code structure}. */
    public static AdapterInputs of(Structure structure, Collection<Place> layers) {
        Model model = structure.analysis().program().model();
        GraphEditor editor = new GraphEditor(model);
        Map<Place, Names> inputs = new LinkedHashMap<>();
        for (Place layer : layers) {
            DType computed = elementType(layer.ops.get(0));
            DType dtype = Widening.widen(computed);
            String down = input(editor, layer.name + ".lora_A", dtype, layer.inputs, -1);
            String up = input(editor, layer.name + ".lora_B", dtype, -1, layer.outputs);
            inputs.put(layer, new Names(down, up, dtype));
            layer.ops.forEach(op -> add(op.node(), down, up, dtype == computed ? null : computed, editor));
        }
        Model edited = editor.apply(Map.of());
        return new AdapterInputs(edited.withIrVersion(Math.max(edited.irVersion(), OPTIONAL_INPUTS)), inputs);
    }

    /** The element type that a linear layer computes in: that of its weight, or of the scales of a quantised weight. */
    static DType elementType(Op linear) {
        for (int i = 1; i < linear.inputs().size(); i++) {
            DType found = linear.input(i) == null ? null : realType(linear.input(i));
            if (found != null) {
                return found;
            }
        }
        return DType.FLOAT;
    }

    private static DType realType(Value value) {
        if (value.constant() != null || value.producer() == null) {
            return value.constant() != null && value.constant().dtype().isFloat()
                    ? value.constant().dtype()
                    : null;
        }
        Node node = value.producer().node();
        if (node.is("Cast")) {
            return DType.of((int) node.intAttribute("to", 0));
        }
        return value.producer().inputs().stream()
                .filter(Objects::nonNull)
                .map(AdapterInputs::realType)
                .filter(Objects::nonNull)
                .findFirst()
                .orElse(null);
    }

    private static String input(GraphEditor editor, String base, DType dtype, long rows, long columns) {
        Tensor empty = Tensor.of(
                dtype, new long[] {Math.max(0, rows), Math.max(0, columns)}, Bytes.of(ByteBuffer.allocate(0)));
        String name = editor.addInitializer(base, empty);
        editor.addInput(new ValueInfo(name, dtype, List.of(extent(rows), extent(columns)), new byte[0]));
        return name;
    }

    private static Extent extent(long size) {
        return size < 0 ? new Extent(-1, RANK) : Extent.of(size);
    }

    /**
     * Adds (x·A)·B to the output of a linear layer.
     *
     * @param cast element type that A and B are cast to; null for no cast
     */
    private static void add(Node linear, String down, String up, DType cast, GraphEditor editor) {
        String x = editor.current(linear).input(0);
        String inner = editor.freshName(down + "_product");
        String change = editor.freshName(up + "_product");
        String result = editor.renameOutput(linear, "_frozen");
        editor.insertAfter(linear, matMul(x, cast(down, cast, linear, editor), inner));
        editor.insertAfter(linear, matMul(inner, cast(up, cast, linear, editor), change));
        editor.insertAfter(
                linear,
                Node.of(
                        editor.freshName(result + "_adapted"),
                        "Add",
                        List.of(editor.current(linear).output(0), change),
                        List.of(result),
                        Map.of()));
    }

    private static String cast(String input, DType dtype, Node linear, GraphEditor editor) {
        if (dtype == null) {
            return input;
        }
        String result = editor.freshName(input + "_cast");
        Map<String, Attribute> to = Map.of("to", new Attribute.Int(dtype.code()));
        editor.insertAfter(linear, Node.of(result, "Cast", List.of(input), List.of(result), to));
        return result;
    }

    private static Node matMul(String x, String matrix, String result) {
        return Node.of(result, "MatMul", List.of(x, matrix), List.of(result), Map.of());
    }
}
