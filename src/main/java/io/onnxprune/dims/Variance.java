// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/**
 * How tensors change with a change of basis of a dimension: whether replacing its units by invertible combinations T of
 * them leaves the function of the model as it is, and which constants change on which side.
 *
 * <p>Every tensor with the dimension is a <i>vector</i> along it, which becomes x·T, or a <i>covector</i>, which becomes
 * x·T⁻ᵀ. Operators that move, add or scale vectors keep the side. A sum of products over the dimension needs one of
 * each, so values of attention and the output projection that reads them are on opposite sides, and so are queries and keys.
 * Any other operator, such as a norm, an elementwise function or a rotary embedding, treats the units one by one; then
 * the basis cannot change.
 *
 * <p>T may differ between indices of {@link #lanes}: dimensions that all these tensors have beside this one, such as KV heads.
 */
public final class Variance {
    private static final Set<String> ADDS = Set.of("Add", "Sub", "Sum", "Concat", "ScatterND", "TensorScatter");
    private static final Set<String> KEEPS = Set.of("Neg", "Dropout", "ReduceSum", "ReduceMean");

    private final DimensionAnalysis analysis;
    private final Dim.Atom atom;
    private final Map<Object, Object> parents = new HashMap<>();
    private final Map<Object, Boolean> flips = new HashMap<>();
    private final Map<Use, Value> constants = new LinkedHashMap<>();
    private Set<Dim.Atom> lanes;
    private String obstacle;

    private Variance(DimensionAnalysis analysis, Dim.Atom atom) {
        this.analysis = analysis;
        this.atom = atom;
        for (Op op : analysis.program().ops()) {
            if (obstacle == null && touches(op)) {
                relate(op);
            }
        }
        if (obstacle == null) {
            checkInterface();
        }
    }

    /** Follows the tensors that have {@code dimension}. */
    public static Variance of(DimensionAnalysis analysis, Dimension dimension) {
        return new Variance(analysis, dimension.atom());
    }

    /** The reason why the basis cannot change, with the node; empty if it can. */
    public Optional<String> obstacle() {
        return Optional.ofNullable(obstacle);
    }

    /**
     * The uses of constants that have the dimension, and whether each is a covector there. Zeros, which stay zeros in any
     * basis, are left out.
     */
    public Map<Use, Boolean> constants() {
        Map<Use, Boolean> sides = new LinkedHashMap<>();
        constants.keySet().forEach(use -> {
            root(use);
            sides.put(use, flips.get(use));
        });
        return sides;
    }

    /** The dimensions that every tensor with this dimension has too, so that each of their indices may have its own basis. */
    public Set<Dim.Atom> lanes() {
        return lanes == null ? Set.of() : lanes;
    }

    private boolean has(Dim[] dims) {
        return dims != null && Arrays.stream(dims).anyMatch(this::has);
    }

    private boolean has(Dim dim) {
        return dim.atoms().contains(atom);
    }

    private boolean has(Op op, int input) {
        return has(analysis.operand(op, input));
    }

    private boolean gives(Op op, int output) {
        return op.output(output) != null && has(analysis.dims(op.output(output)));
    }

    private boolean touches(Op op) {
        boolean constant = op.outputs().stream().allMatch(value -> value != null && value.constant() != null);
        return !constant
                && (IntStream.range(0, op.inputs().size()).anyMatch(i -> has(op, i))
                        || IntStream.range(0, op.outputs().size()).anyMatch(i -> gives(op, i)));
    }

    private void relate(Op op) {
        Node node = op.node();
        boolean standard = node.domain().isEmpty();
        if (node.is("Shape") || node.is("Size")) {
            return;
        }
        boolean cast = node.is("Cast") && !analysis.trace().dtype(op.output(0)).isFloat();
        if (Absent.moves(node) && !cast || standard && KEEPS.contains(node.op())) {
            follow(op, Set.of(0), false);
        } else if (standard && ADDS.contains(node.op())) {
            follow(op, addends(op), !node.is("Concat"));
        } else if (node.is("Where")) {
            follow(op, Set.of(1, 2), true);
        } else if (node.is("Mul")) {
            follow(op, has(op, 0) ? Set.of(0) : Set.of(1), false);
        } else if (node.is("Div")) {
            follow(op, Set.of(0), false);
        } else if (node.is("If")) {
            branches(op);
        } else if (node.is("MatMul") || node.is("FusedMatMul") || node.is("Gemm")) {
            product(op);
        } else if (standard && node.is("Attention")) {
            attention(op);
        } else if (!node.is("ConstantOfShape") || !isZero(node)) {
            refuse(op);
        } else {
            place(op.output(0), analysis.dims(op.output(0)));
        }
    }

    private void refuse(Op op) {
        boolean quantised = !QuantizedOperands.of(op.node()).isEmpty();
        obstacle =
                "node " + op.node().label() + (quantised ? " has quantised weights" : " treats its units one by one");
    }

    private static Set<Integer> addends(Op op) {
        boolean scatters = op.node().op().contains("Scatter");
        return scatters
                ? Set.of(0, op.node().is("ScatterND") ? 2 : 1)
                : IntStream.range(0, op.inputs().size()).boxed().collect(Collectors.toSet());
    }

    /**
     * Puts operands and results on the same side.
     *
     * @param operands those that may have the dimension
     * @param all whether the others of them must be zero, because they are added to every unit
     */
    private void follow(Op op, Set<Integer> operands, boolean all) {
        boolean any = IntStream.range(0, op.outputs().size()).anyMatch(i -> gives(op, i));
        boolean lost = !any && operands.stream().anyMatch(i -> has(op, i)) && !takesOthers(op);
        boolean other = IntStream.range(0, op.inputs().size()).anyMatch(i -> !operands.contains(i) && has(op, i));
        boolean same = all
                && operands.stream()
                        .anyMatch(i -> op.input(i) != null
                                && !has(op, i)
                                && !isZero(op.input(i).constant()));
        if (lost || other || same) {
            refuse(op);
            return;
        }
        Object first = null;
        for (int input : operands) {
            if (has(op, input)) {
                Object key = place(op, input);
                first = first == null ? key : join(op, first, key, false);
            }
        }
        for (int output = 0; output < op.outputs().size(); output++) {
            if (gives(op, output)) {
                Object key = place(op.output(output), analysis.dims(op.output(output)));
                first = first == null ? key : join(op, first, key, false);
            }
        }
    }

    /** Whether the operator takes other parts of an axis that the dimension is only a part of, such as queries from q ⊕ k ⊕ v. */
    private boolean takesOthers(Op op) {
        return op.node().is("Slice")
                && Arrays.stream(analysis.operand(op, 0))
                        .allMatch(dim -> !has(dim) || dim.resolve() instanceof Dim.Sum);
    }

    private void branches(Op op) {
        for (List<Value> yields : analysis.program().branchOutputs(op.node())) {
            for (int i = 0; i < yields.size(); i++) {
                if (gives(op, i)) {
                    join(
                            op,
                            place(op.output(i), analysis.dims(op.output(i))),
                            place(yields.get(i), analysis.dims(yields.get(i))),
                            false);
                }
            }
        }
    }

    /** A matrix product sums over the dimension, or one operand has it and the result too. */
    private void product(Op op) {
        Node node = op.node();
        Dim[] a = analysis.operand(op, 0);
        Dim[] b = analysis.operand(op, 1);
        boolean swapped = node.intAttribute("transBatchA", 0) != 0 || node.intAttribute("transBatchB", 0) != 0;
        Dim inner = a[Math.max(0, node.intAttribute("transA", 0) != 0 ? a.length - 2 : a.length - 1)];
        boolean inAll = has(inner) && count(a) == 1 && count(b) == 1 && !gives(op, 0);
        boolean inOne = !has(inner) && count(a) + count(b) == 1 && gives(op, 0);
        if (swapped || !inAll && !inOne) {
            refuse(op);
        } else if (inAll) {
            join(op, place(op, 0), place(op, 1), true);
        } else {
            Set<Integer> operands = new LinkedHashSet<>(List.of(has(a) ? 0 : 1));
            if (op.input(2) != null) {
                operands.add(2);
            }
            follow(op, operands, true);
        }
    }

    private long count(Dim[] dims) {
        return Arrays.stream(dims).filter(this::has).count();
    }

    /** Attention of opset 23: queries against keys, and a weighted mean of values. */
    private void attention(Op op) {
        int[][] sides = {{0, -1}, {1, 1}, {4, 1}, {2, -1}, {5, -1}};
        Object queries = has(op, 0) ? place(op, 0) : null;
        Object values = has(op, 2) ? place(op, 2) : null;
        for (int[] side : sides) {
            if (has(op, side[0])) {
                boolean key = side[1] > 0;
                join(op, key || side[0] == 0 ? queries : values, place(op, side[0]), key);
            }
        }
        for (int output = 0; output < 3; output++) {
            if (gives(op, output)) {
                Object key = place(op.output(output), analysis.dims(op.output(output)));
                join(op, output == 1 ? queries : values, key, output == 1);
            }
        }
        boolean mask = has(op, 3) || gives(op, 3);
        if (mask) {
            refuse(op);
        }
    }

    private Object place(Op op, int input) {
        Value value = op.input(input);
        Dim[] dims = analysis.operand(op, input);
        if (value.constant() == null) {
            return place(value, dims);
        }
        Use use = new Use(op, input);
        if (!isZero(value.constant())) {
            constants.put(use, value);
        }
        return place((Object) use, dims);
    }

    private Object place(Object tensor, Dim[] dims) {
        if (parents.putIfAbsent(tensor, tensor) == null) {
            flips.put(tensor, false);
            Set<Dim.Atom> others = new HashSet<>();
            Arrays.stream(dims)
                    .forEach(dim -> dim.atoms().stream()
                            .filter(other -> other != atom && !other.isDynamic() && other.size(0) > 1)
                            .forEach(others::add));
            if (lanes == null) {
                lanes = new LinkedHashSet<>(others);
            }
            lanes.retainAll(others);
            if (count(dims) != 1) {
                obstacle = tensor + " has it along several axes";
            }
        }
        return tensor;
    }

    /** The representative of a tensor's component; afterwards the tensor's flip is relative to it. */
    private Object root(Object tensor) {
        Object parent = parents.get(tensor);
        if (parent == tensor) {
            return tensor;
        }
        Object root = root(parent);
        if (root != parent) {
            flips.put(tensor, flips.get(tensor) ^ flips.get(parent));
            parents.put(tensor, root);
        }
        return root;
    }

    private Object join(Op op, Object left, Object right, boolean opposite) {
        Object first = root(left);
        Object second = root(right);
        boolean flip = flips.get(left) ^ flips.get(right) ^ opposite;
        if (first != second) {
            parents.put(second, first);
            flips.put(second, flip);
        } else if (flip && obstacle == null) {
            obstacle = "node " + op.node().label() + " multiplies its units with others in the same basis";
        }
        return left;
    }

    /** Callers see only what a state carries from step to step, which they do not interpret. */
    private void checkInterface() {
        for (Value input : analysis.program().inputs()) {
            if (has(analysis.dims(input)) && !analysis.isState(input)) {
                obstacle = "input \"" + input.name() + "\" has it";
            }
        }
        for (Value output : analysis.program().outputs()) {
            if (has(analysis.dims(output)) && !analysis.isNextState(output)) {
                obstacle = "output \"" + output.name() + "\" has it";
            }
        }
    }

    private static boolean isZero(Node node) {
        Attribute value = node.attributes().get("value");
        return value == null || value instanceof Attribute.Constant filled && isZero(filled.tensor());
    }

    private static boolean isZero(Tensor tensor) {
        if (tensor == null || !tensor.dtype().isFloat() || tensor.elements() > 1 << 16) {
            return false;
        }
        for (float value : tensor.toFloats()) {
            if (value != 0) {
                return false;
            }
        }
        return true;
    }
}
