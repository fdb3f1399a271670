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
 * Room for low-rank adapters in a model: beside a product x·W the model computes (x·A)·B too, where A and B are inputs that may be
 * left out. Their defaults have rank 0, with which the model is what it was, at its speed.
 *
 * @param model with the inputs
 * @param inputs the inputs of each product
 */
public record AdapterInputs(Model model, Map<Place, Names> inputs) {
    /** Initializers that are inputs too can be left out from this version of the format on (ONNX IR specification). */
    private static final long OPTIONAL_INPUTS = 4;

    private static final String RANK = "lora_rank";

    /**
     * The inputs of a product, in float32 and cast where the model computes in half precision: ONNX Runtime before 1.30 crashes on
     * half initializers that can be left out (its pull request 32143). Beside float64 in that.
     *
     * @param down A, [n, any rank]
     * @param up B, [that rank, outputs]
     */
    public record Names(String down, String up, DType dtype) {}

    /**
     * A product.
     *
     * @param name what the names of its inputs begin with
     * @param ops the applications that compute it, with x as their first input: one, but for a product that several branches of an
     *     If have
     * @param inputs channels of x
     * @param outputs channels of the result
     */
    public record Place(String name, List<Op> ops, int inputs, int outputs) {
        public Place {
            ops = List.copyOf(ops);
        }
    }

    /** Adds them to the model of {@code structure}. */
    public static AdapterInputs of(Structure structure, Collection<Place> products) {
        Model model = structure.analysis().program().model();
        GraphEditor editor = new GraphEditor(model);
        Map<Place, Names> inputs = new LinkedHashMap<>();
        for (Place product : products) {
            DType computed = elementType(product.ops.get(0));
            DType dtype = Widening.widen(computed);
            String down = input(editor, product.name + ".lora_A", dtype, product.inputs, -1);
            String up = input(editor, product.name + ".lora_B", dtype, -1, product.outputs);
            inputs.put(product, new Names(down, up, dtype));
            product.ops.forEach(op -> add(op.node(), down, up, dtype == computed ? null : computed, editor));
        }
        Model edited = editor.apply(Map.of());
        return new AdapterInputs(edited.withIrVersion(Math.max(edited.irVersion(), OPTIONAL_INPUTS)), inputs);
    }

    /** The element type that a product computes in: that of its matrix, or of the scales of one that is quantised. */
    static DType elementType(Op product) {
        for (int i = 1; i < product.inputs().size(); i++) {
            DType found = product.input(i) == null ? null : realType(product.input(i));
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

    /** @param cast what A and B are cast to; null for nothing */
    private static void add(Node product, String down, String up, DType cast, GraphEditor editor) {
        String x = editor.current(product).input(0);
        String inner = editor.freshName(down + "_product");
        String change = editor.freshName(up + "_product");
        String result = editor.renameOutput(product, "_frozen");
        editor.insertAfter(product, product(x, cast(down, cast, product, editor), inner));
        editor.insertAfter(product, product(inner, cast(up, cast, product, editor), change));
        editor.insertAfter(
                product,
                Node.of(
                        editor.freshName(result + "_adapted"),
                        "Add",
                        List.of(editor.current(product).output(0), change),
                        List.of(result),
                        Map.of()));
    }

    private static String cast(String input, DType dtype, Node product, GraphEditor editor) {
        if (dtype == null) {
            return input;
        }
        String result = editor.freshName(input + "_cast");
        Map<String, Attribute> to = Map.of("to", new Attribute.Int(dtype.code()));
        editor.insertAfter(product, Node.of(result, "Cast", List.of(input), List.of(result), to));
        return result;
    }

    private static Node product(String x, String matrix, String result) {
        return Node.of(result, "MatMul", List.of(x, matrix), List.of(result), Map.of());
    }
}
