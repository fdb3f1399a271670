package io.onnxprune.ir;

import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Rewrites nodes so that a graph computes in float32 where it declared a half precision: kernels for float16 and
 * bfloat16 are missing on some execution providers, and a comparison of two models should not drown in rounding.
 */
public final class Widening {
    /** Attributes that hold a TensorProto element type code. */
    private static final List<String> TYPE_ATTRIBUTES = List.of("to", "dtype", "output_dtype");

    private Widening() {}

    public static DType widen(DType dtype) {
        return dtype == DType.FLOAT16 || dtype == DType.BFLOAT16 ? DType.FLOAT : dtype;
    }

    /** The tensor in float32 if it has a half type; for small tensors. */
    public static Tensor widen(Tensor tensor) {
        return widen(tensor.dtype()) == tensor.dtype()
                ? tensor
                : Tensor.ofFloats(DType.FLOAT, tensor.shape(), tensor.toFloats());
    }

    /** The node with constants and type attributes in float32. */
    public static Node widen(Node node) {
        Map<String, Attribute> changed = new LinkedHashMap<>(node.attributes());
        changed.replaceAll((key, attribute) -> {
            if (attribute instanceof Attribute.Constant constant
                    && constant.tensor().dtype().isFloat()) {
                return new Attribute.Constant(widen(constant.tensor()));
            }
            if (attribute instanceof Attribute.Int code && TYPE_ATTRIBUTES.contains(key)) {
                return new Attribute.Int(widen(DType.of((int) code.value())).code());
            }
            return attribute;
        });
        return new Node(node.name(), node.domain(), node.op(), node.inputs(), node.outputs(), changed, node.rest());
    }
}
