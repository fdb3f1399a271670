// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.AnalysisFacts.Contraction;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.dims.QuantizedOperands;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Branch;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.stream.Collectors;

/**
 * The linear layers X·W of a model, and the dimensions that they sum over. A layer that sums over a dimension is a
 * layer of it. Without a unit of the dimension, the rows of W for this unit are missing from the sum, and the kept
 * rows can be changed to compensate.
 */
public final class LinearLayers {
    /**
     * The constant behind the weight operand of a matrix product.
     *
     * @param constant the constant matrix; null if the operator is refused
     * @param transposed whether the operand is the transpose of the constant
     * @param problem why the operator is not a linear layer whose weight may be changed; null if it is
     */
    private record Source(Value constant, boolean transposed, String problem) {
        static Source refused(String problem) {
            return new Source(null, false, problem);
        }
    }

    private static final String NEEDED = ", where a plain floating-point matrix is needed";

    private final DimensionAnalysis analysis;
    private final Map<Value, LinearLayer> byWeight = new LinkedHashMap<>();
    private final Map<String, LinearLayer> byName = new HashMap<>();
    private final Map<Op, LinearLayer> byOp = new HashMap<>();
    private final Map<Op, String> problems = new HashMap<>();
    private final Set<Op> inside = new HashSet<>();

    private LinearLayers(Structure structure) {
        this.analysis = structure.analysis();
        Map<Value, List<Op>> users = new LinkedHashMap<>();
        Map<Op, Source> sources = new LinkedHashMap<>();
        for (Contraction contraction : analysis.facts().contractions()) {
            if (contraction.withConstant() && !sources.containsKey(contraction.op())) {
                Source source = source(contraction.op());
                sources.put(contraction.op(), source);
                if (source.constant != null) {
                    users.computeIfAbsent(source.constant, key -> new ArrayList<>())
                            .add(contraction.op());
                }
            }
        }
        sources.forEach((op, source) -> {
            String problem =
                    source.problem != null ? source.problem : obstacle(source.constant, users.get(source.constant));
            if (problem != null) {
                problems.put(op, "node " + op.node().label() + " " + problem);
            } else {
                byOp.put(op, byWeight.computeIfAbsent(source.constant, weight -> linearLayer(op, source)));
            }
        });
        byWeight.forEach((weight, layer) -> byName.put(weight.name(), layer));
        structure.stream().blocks().forEach(block -> inside.addAll(block.ops()));
    }

    /** Finds the linear layers of a model. */
    public static LinearLayers of(Structure structure) {
        return new LinearLayers(structure);
    }

    /** All linear layers whose weight may be changed, in order of execution. */
    public List<LinearLayer> all() {
        return List.copyOf(byWeight.values());
    }

    /** The linear layer with the weight of this name; null if there is none whose weight may be changed. */
    public LinearLayer ofWeight(String weight) {
        return byName.get(weight);
    }

    /** Selects the constants that are weights of linear layers and may be changed. */
    public Set<Value> weights(Collection<Value> constants) {
        Set<Value> found = new HashSet<>(constants);
        found.removeIf(value -> !byWeight.containsKey(value));
        return found;
    }

    /** The reasons why the weights of other linear layers may not be changed, in order of execution. */
    public Map<Op, String> problems() {
        Map<Op, String> sorted = new LinkedHashMap<>();
        problems.keySet().stream()
                .sorted(Comparator.comparingInt(Op::index))
                .forEach(op -> sorted.put(op, problems.get(op)));
        return sorted;
    }

    /** The consumers of {@code dimension} whose weights may be changed, in order of execution. */
    public List<LinearLayer> of(Dimension dimension) {
        return applications(dimension).stream()
                .map(byOp::get)
                .filter(found -> found != null)
                .distinct()
                .toList();
    }

    /**
     * The operator applications that compute a linear layer. There are several only where several branches of an If
     * have the layer.
     */
    public List<Op> applications(LinearLayer layer) {
        return byOp.entrySet().stream()
                .filter(entry -> entry.getValue().equals(layer))
                .map(Map.Entry::getKey)
                .sorted(Comparator.comparingInt(Op::index))
                .toList();
    }

    /** The reason why not all consumers of {@code dimension} are known and may be changed; null if they are. */
    public String problem(Dimension dimension) {
        List<Op> ops = applications(dimension);
        if (ops.isEmpty()) {
            return "no product with a constant matrix sums over it";
        }
        return ops.stream()
                .map(problems::get)
                .filter(found -> found != null)
                .findFirst()
                .orElse(null);
    }

    /**
     * Restricts a budget for a method that must know and change the consumers. Dimensions for which that is not
     * possible are not pruned, and a warning is logged.
     *
     * @param ofLoss whether the method measures errors of all layers by their effect on the loss, so that errors
     *     of different layers can be added
     * @param method how messages name the method
     * @throws UserException if nothing that the budget names can be pruned, or it names layers or blocks
     */
    public Budget restrict(Budget budget, Structure structure, boolean ofLoss, String method, Log log) {
        requireUnits(budget, method);
        List<Dimension> requested = requested(budget.prune(), structure);
        List<Dimension> impossible = unscored(budget.prune(), structure, ofLoss);
        if (impossible.isEmpty()) {
            return budget;
        }
        Dimension first = impossible.get(0);
        String why = first.name() + ", " + reason(first, ofLoss);
        if (impossible.size() == requested.size()) {
            String words = requested.stream()
                    .map(dimension -> PruneSet.word(dimension.role()))
                    .distinct()
                    .collect(Collectors.joining(" and no "));
            throw new UserException(method + " can prune no " + words + " in this model: " + why
                    + "; prune something else, or choose another method");
        }
        log.warn(
                impossible.size() + " of " + requested.size() + " dimensions are not pruned by " + method + ": " + why);
        Map<String, String> refused = new LinkedHashMap<>();
        impossible.forEach(dimension ->
                refused.put(dimension.name(), "not pruned by " + method + " (" + reason(dimension, ofLoss) + ")"));
        return budget.withRefused(refused);
    }

    /**
     * Refuses a budget of layers or blocks.
     *
     * @param method how the message names the method
     * @throws UserException if the budget names them
     */
    public static void requireUnits(Budget budget, String method) {
        if (budget.prune().layers() || budget.prune().blocks()) {
            throw new UserException(method + " compares heads and channels, not whole layers or blocks; prune those, or"
                    + " choose another method");
        }
    }

    private static List<Dimension> requested(PruneSet prune, Structure structure) {
        return structure.dimensions().stream()
                .filter(dimension -> dimension.isPrunable() && prune.roles().contains(dimension.role()))
                .toList();
    }

    /** The dimensions of {@code prune} whose units cannot be scored by their consumers, as {@link #reason} says. */
    public List<Dimension> unscored(PruneSet prune, Structure structure, boolean ofLoss) {
        return requested(prune, structure).stream()
                .filter(dimension -> reason(dimension, ofLoss) != null)
                .toList();
    }

    /**
     * The reason why the units of a dimension cannot be scored by its consumers; null if they can.
     *
     * @param ofLoss whether errors of different layers can be added
     */
    public String reason(Dimension dimension, boolean ofLoss) {
        if (dimension.role() != Role.HIDDEN) {
            return problem(dimension);
        }
        if (!ofLoss) {
            return "it runs through all layers, so no single consumer can score it";
        }
        return scoring(dimension).isEmpty() ? problem(dimension) : null;
    }

    /**
     * The consumers that score the units of a dimension. For the hidden width these are only the consumers in residual
     * blocks. The output layer has as many outputs as the vocabulary has tokens, and the second moment of so many
     * gradients does not fit into memory.
     */
    public List<LinearLayer> scoring(Dimension dimension) {
        List<LinearLayer> all = of(dimension);
        return dimension.role() != Role.HIDDEN
                ? all
                : all.stream().filter(this::isInside).toList();
    }

    /** Whether a linear layer is in a residual block. */
    public boolean isInside(LinearLayer layer) {
        return applications(layer).stream().anyMatch(inside::contains);
    }

    /** Whether an operator application is in a residual block. */
    public boolean isInside(Op op) {
        return inside.contains(op);
    }

    private List<Op> applications(Dimension dimension) {
        return analysis.facts().contractions().stream()
                .filter(contraction ->
                        contraction.withConstant() && contraction.dim().atoms().contains(dimension.atom()))
                .map(Contraction::op)
                .distinct()
                .toList();
    }

    private LinearLayer linearLayer(Op op, Source source) {
        int axis = rowAxis(op) == 0 ^ source.transposed ? 0 : 1;
        Use use = source.constant.uses().get(0);
        Dim[] dims = analysis.operand(use.op(), use.input());
        return new LinearLayer(
                source.constant, axis, dims[axis], dims[1 - axis], op.node().label());
    }

    /** The axis of the second operand that a matrix product sums over. */
    private static int rowAxis(Op op) {
        return op.node().intAttribute("transB", 0) == 0 ? 0 : 1;
    }

    private static Source source(Op op) {
        Node node = op.node();
        boolean matrixProduct = node.is("MatMul") || node.is("Gemm") || node.is("FusedMatMul");
        if (!matrixProduct) {
            boolean experts = node.op().endsWith("MoE");
            boolean quantised = !QuantizedOperands.of(node).isEmpty();
            return Source.refused((experts
                            ? "has the matrices of experts"
                            : quantised ? "has quantised weights" : "is not a matrix product")
                    + NEEDED);
        }
        boolean leftTransposed = node.intAttribute("transA", 0) != 0 || node.intAttribute("transBatchA", 0) != 0;
        boolean scaled = node.floatAttribute("alpha", 1) != 1 || node.intAttribute("transBatchB", 0) != 0;
        if (leftTransposed || scaled) {
            return Source.refused("transposes its activations or scales its result");
        }
        boolean transposed = false;
        Value matrix = op.input(1);
        while (matrix.constant() == null) {
            Op before = matrix.producer();
            if (before == null) {
                return Source.refused("has its constant matrix on the left");
            }
            boolean moved = before.node().is("Transpose");
            if (!moved && !before.node().is("Cast") && !before.node().is("Identity")) {
                return Source.refused("has a matrix that node " + before.node().label() + " computes" + NEEDED);
            }
            if (moved) {
                List<Long> order = before.node().intsAttribute("perm");
                transposed ^= order == null || !order.equals(List.of(0L, 1L));
            }
            matrix = before.input(0);
        }
        Tensor tensor = matrix.constant();
        if (tensor.rank() != 2) {
            return Source.refused("has a stack of matrices, as of experts" + NEEDED);
        }
        if (!tensor.dtype().isFloat()) {
            return Source.refused("has quantised weights" + NEEDED);
        }
        return new Source(matrix, transposed, null);
    }

    /** The reason why the weight of a linear layer may not be changed; null if it may. */
    private static String obstacle(Value weight, List<Op> ops) {
        if (ops.size() == 1 && !ops.get(0).branch().isEmpty()) {
            return "is in one branch of an If, and calibration does not run the other";
        }
        for (Op first : ops) {
            for (Op second : ops) {
                if (!first.equals(second) && !exclude(first, second)) {
                    return "shares its weight with node "
                            + (first.index() < second.index() ? second : first)
                                    .node()
                                    .label();
                }
            }
        }
        return otherUse(weight, ops);
    }

    private static String otherUse(Value value, List<Op> ops) {
        for (Use use : value.uses()) {
            Op op = use.op();
            boolean moved = op.node().is("Transpose")
                    || op.node().is("Cast")
                    || op.node().is("Identity");
            String other = moved
                    ? otherUse(op.output(0), ops)
                    : ops.contains(op)
                            ? null
                            : "shares its weight with node " + op.node().label();
            if (other != null) {
                return other;
            }
        }
        return null;
    }

    /** Whether two applications are on different sides of one If, so that a run takes only one of them. */
    private static boolean exclude(Op first, Op second) {
        for (Branch one : first.branch()) {
            for (Branch other : second.branch()) {
                if (one.owner() == other.owner() && one.taken() != other.taken()) {
                    return true;
                }
            }
        }
        return false;
    }
}
