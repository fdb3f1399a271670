// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.rewrite.StreamBasis.Kind;
import io.onnxprune.rewrite.StreamBasis.Place;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * Moves what norms do to single channels of the residual stream into the linear layers around them, which changes no result:
 *
 * <ul>
 *   <li>scale and shift of a norm go into the matrices and biases that read it;
 *   <li>a subtracted mean goes into what writes to the stream, and a layer norm becomes an RMS norm;
 *   <li>a matrix that both reads and writes, as tied embeddings, stays. A square matrix before its product holds the scale, and
 *       a difference behind its look-up takes the mean off.
 * </ul>
 */
public final class NormFolding {
    private final Structure structure;
    private final StreamBasis basis;
    private final StreamWeights weights;
    private final StreamEditor editor;
    private final int width;
    private final Map<Value, List<Place>> uses = new HashMap<>();

    private NormFolding(Structure structure, StreamWeights weights) {
        this.structure = structure;
        this.basis = StreamBasis.of(structure);
        this.weights = weights;
        this.editor = new StreamEditor(structure.analysis().program().model());
        this.width = basis.hidden().size();
        basis.places()
                .forEach(place -> uses.computeIfAbsent(place.constant(), key -> new ArrayList<>())
                        .add(place));
    }

    /**
     * The model with plain norms on its residual stream.
     *
     * @param structure of a model in which the layers of {@link StreamRotation#biased} have biases
     * @throws UserException with the node that stands against it
     */
    public static Model of(Structure structure, StreamWeights weights) {
        return new NormFolding(structure, weights).run();
    }

    private Model run() {
        Map<Op, double[]> shifts = new LinkedHashMap<>();
        for (Place place : basis.places()) {
            switch (place.kind()) {
                case READ -> read(place, shifts);
                case WRITE -> write(place);
                case SCALE -> editor.set(place, filled(place.constant().constant(), 1));
                case SHIFT -> {
                    if (place.op().node().is("Add")) {
                        pass(place.op(), place.op().input(place.op().input(0).equals(place.constant()) ? 1 : 0));
                    }
                }
            }
        }
        addToBiases(shifts);
        basis.centrings().keySet().forEach(this::withoutMean);
        return editor.apply();
    }

    private static Tensor filled(Tensor like, float value) {
        float[] values = new float[Math.toIntExact(like.elements())];
        Arrays.fill(values, value);
        return Tensor.ofFloats(like.dtype(), like.shape(), values);
    }

    /** Whether a matrix has another use along its hidden axis that needs other contents. */
    private boolean isShared(Place place) {
        List<Place> all = uses.get(place.constant());
        return place.constant().constant().rank() > 1
                && all.stream()
                        .anyMatch(other -> !other.equals(place)
                                && other.axis() == place.axis()
                                && (other.kind() != place.kind() || place.kind() == Kind.READ));
    }

    private void read(Place place, Map<Op, double[]> shifts) {
        double[] scale = place.frame().scale();
        double[] shift = place.frame().shift();
        if (place.frame().isPlain()) {
            return;
        }
        if (isShared(place)) {
            boolean copied = shift == null
                    && basis.centrings().isEmpty()
                    && (long) width * width > place.constant().constant().elements();
            if (copied) {
                untie(place, scale);
            } else {
                insertProduct(place, scale, shift);
            }
            return;
        }
        if (shift != null) {
            shifts.put(place.op(), weights.sums(place.constant().constant(), place.axis(), shift));
        }
        if (scale != null) {
            editor.set(place, weights.scaled(editor.contents(place), place.axis(), scale));
        }
    }

    /** A copy of a matrix with fewer elements than the square one that would go before it. */
    private void untie(Place place, double[] scale) {
        Tensor copy = weights.scaled(place.constant().constant(), place.axis(), scale);
        String name = editor.graph().addInitializer(place.constant().name() + "_scaled", copy);
        editor.graph().setInput(place.use().op().node(), place.use().input(), name);
    }

    /** x becomes x·diag(scale) + shift before a matrix that has to stay. */
    private void insertProduct(Place place, double[] scale, double[] shift) {
        Op op = place.op();
        GraphEditor graph = editor.graph();
        DType dtype = structure.analysis().trace().dtype(op.input(0));
        float[] square = new float[Math.multiplyExact(width, width)];
        float[] terms = new float[width];
        for (int i = 0; i < width; i++) {
            square[i * width + i] = scale == null ? 1 : (float) scale[i];
            terms[i] = shift == null ? 0 : (float) shift[i];
        }
        String base = op.input(0).name();
        String matrix =
                graph.addInitializer(base + "_scale", Tensor.ofFloats(dtype, new long[] {width, width}, square));
        String result = graph.freshName(base + "_scaled");
        graph.insertBefore(op.node(), Node.of(result, "MatMul", List.of(base, matrix), List.of(result), Map.of()));
        if (shift != null) {
            String vector = graph.addInitializer(base + "_shift", Tensor.ofFloats(dtype, new long[] {width}, terms));
            String sum = graph.freshName(base + "_shifted");
            graph.insertBefore(op.node(), Node.of(sum, "Add", List.of(result, vector), List.of(sum), Map.of()));
            result = sum;
        }
        graph.setInput(op.node(), 0, result);
    }

    private void write(Place place) {
        if (basis.centrings().isEmpty()) {
            return;
        }
        if (!isShared(place)) {
            editor.set(place, weights.centred(editor.contents(place), place.axis()));
            return;
        }
        GraphEditor graph = editor.graph();
        Op op = place.op();
        DType dtype = structure.analysis().trace().dtype(op.output(0));
        float[] mean = new float[width];
        float[] ones = new float[width];
        Arrays.fill(mean, -1f / width);
        Arrays.fill(ones, 1);
        String result = graph.renameOutput(op.node(), "_uncentred");
        String inner = graph.current(op.node()).output(0);
        String down = graph.addInitializer(result + "_mean", Tensor.ofFloats(dtype, new long[] {width, 1}, mean));
        String up = graph.addInitializer(result + "_ones", Tensor.ofFloats(dtype, new long[] {1, width}, ones));
        String sum = graph.freshName(result + "_sum");
        String term = graph.freshName(result + "_term");
        graph.insertAfter(op.node(), Node.of(sum, "MatMul", List.of(inner, down), List.of(sum), Map.of()));
        graph.insertAfter(op.node(), Node.of(term, "MatMul", List.of(sum, up), List.of(term), Map.of()));
        graph.insertAfter(
                op.node(),
                Node.of(graph.freshName(result + "_centred"), "Add", List.of(inner, term), List.of(result), Map.of()));
    }

    private void addToBiases(Map<Op, double[]> shifts) {
        LinearLayers layers = LinearLayers.of(structure);
        OutputBiases biases = new OutputBiases(structure);
        Map<Op, List<Value>> found = new HashMap<>();
        for (LinearLayer layer : layers.all()) {
            layers.applications(layer)
                    .forEach(op -> found.put(op, shifts.containsKey(op) ? biases.of(layer) : List.of()));
        }
        shifts.forEach((op, terms) -> {
            List<Value> values = found.getOrDefault(op, List.of());
            if (values.isEmpty()) {
                throw new UserException("the basis of the hidden width cannot change: node "
                        + op.node().label() + " can take no bias for the shift of the norm before it");
            }
            for (Value value : values) {
                float[] sum = value.constant().toFloats();
                for (int i = 0; i < sum.length; i++) {
                    sum[i] += (float) terms[i];
                }
                Tensor old = value.constant();
                editor.set(value, Tensor.ofFloats(old.dtype(), old.shape(), sum));
            }
        });
    }

    private void pass(Op op, Value kept) {
        editor.graph()
                .replace(
                        op.node(),
                        Node.of(
                                op.node().name(),
                                "Identity",
                                List.of(kept.name()),
                                List.of(op.output(0).name()),
                                Map.of()));
    }

    /** A layer norm of values whose mean is zero is an RMS norm. */
    private void withoutMean(Op op) {
        GraphEditor graph = editor.graph();
        Node node = graph.current(op.node());
        if (node.is("Sub")) {
            pass(op, op.input(0));
            return;
        }
        int place = node.is("LayerNormalization") ? 1 : 2;
        DType dtype = structure.analysis().trace().dtype(op.output(0));
        Tensor ones = filled(Tensor.ofFloats(dtype, new long[] {width}, new float[width]), 1);
        String scale = graph.addInitializer(op.input(place).name() + "_ones", ones);
        if (place == 2) {
            List<String> inputs = List.of(node.input(0), node.input(1), scale, node.input(4));
            inputs = node.input(4).isEmpty() ? inputs.subList(0, 3) : inputs;
            Node rms = new Node(
                    node.name(),
                    node.domain(),
                    "SkipSimplifiedLayerNormalization",
                    inputs,
                    node.outputs(),
                    node.attributes(),
                    node.rest());
            graph.replace(op.node(), rms);
            return;
        }
        decompose(op, node, scale, dtype);
    }

    /** x / √(mean(x²) + epsilon) · scale in operators of any opset; half precision is widened as LayerNormalization does. */
    private void decompose(Op op, Node node, String scale, DType dtype) {
        GraphEditor graph = editor.graph();
        boolean half = dtype != DType.FLOAT && dtype != DType.DOUBLE;
        DType inner = half ? DType.FLOAT : dtype;
        String base = node.output(0);
        String x = half ? before(op, base + "_wide", "Cast", List.of(node.input(0)), cast(inner)) : node.input(0);
        String two = graph.addInitializer(base + "_two", Tensor.ofFloats(inner, new long[0], 2));
        String epsilon = graph.addInitializer(
                base + "_epsilon", Tensor.ofFloats(inner, new long[0], node.floatAttribute("epsilon", 1e-5f)));
        String squares = before(op, base + "_squares", "Pow", List.of(x, two), Map.of());
        boolean asInput = structure.analysis().program().model().opset() >= 18;
        Map<String, Attribute> axes = new LinkedHashMap<>(Map.of("keepdims", new Attribute.Int(1)));
        List<String> operands = new ArrayList<>(List.of(squares));
        if (asInput) {
            operands.add(graph.addInitializer(base + "_axes", Tensor.ofIndices(DType.INT64, new long[] {1}, -1)));
        } else {
            axes.put("axes", new Attribute.Ints(List.of(-1L)));
        }
        String mean = before(op, base + "_mean", "ReduceMean", operands, axes);
        String sum = before(op, base + "_stable", "Add", List.of(mean, epsilon), Map.of());
        String root = before(op, base + "_root", "Sqrt", List.of(sum), Map.of());
        String normal = before(op, base + "_normal", "Div", List.of(x, root), Map.of());
        String narrow = half ? before(op, base + "_narrow", "Cast", List.of(normal), cast(dtype)) : normal;
        graph.replace(op.node(), Node.of(node.name(), "Mul", List.of(narrow, scale), List.of(base), Map.of()));
    }

    private static Map<String, Attribute> cast(DType to) {
        return Map.of("to", new Attribute.Int(to.code()));
    }

    private String before(Op op, String base, String operator, List<String> inputs, Map<String, Attribute> attributes) {
        String name = editor.graph().freshName(base);
        editor.graph().insertBefore(op.node(), Node.of(name, operator, inputs, List.of(name), attributes));
        return name;
    }
}
