// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.AnalysisFacts.Contraction;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.DimensionAnalysis;
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
 * The products X·W of activations with constant matrices, and which dimensions they sum over. A product that sums over a
 * dimension consumes it: without a unit of the dimension, the rows of W that belong to it are missing from the sum, and
 * the others can be changed to make up for them.
 */
public final class LinearLayers {
    /** What stands between a product and its matrix: the constant, and whether it is transposed. */
    private record Source(Value constant, boolean transposed, String problem) {
        static Source refused(String problem) {
            return new Source(null, false, problem);
        }
    }

    private final DimensionAnalysis analysis;
    private final Map<Value, LinearLayer> byWeight = new LinkedHashMap<>();
    private final Map<String, LinearLayer> byName = new HashMap<>();
    private final Map<Op, LinearLayer> byOp = new HashMap<>();
    private final Map<Op, String> problems = new HashMap<>();
    private final Set<Op> inside = new HashSet<>();

    private LinearLayers(Structure structure) {
        this.analysis = structure.analysis();
        Map<Value, List<Op>> readers = new LinkedHashMap<>();
        Map<Op, Source> sources = new LinkedHashMap<>();
        for (Contraction contraction : analysis.facts().contractions()) {
            if (contraction.withConstant() && !sources.containsKey(contraction.op())) {
                Source source = source(contraction.op());
                sources.put(contraction.op(), source);
                if (source.constant != null) {
                    readers.computeIfAbsent(source.constant, key -> new ArrayList<>())
                            .add(contraction.op());
                }
            }
        }
        sources.forEach((op, source) -> {
            String problem =
                    source.problem != null ? source.problem : hindrance(source.constant, readers.get(source.constant));
            if (problem != null) {
                problems.put(op, "node " + op.node().label() + " " + problem);
            } else {
                byOp.put(op, byWeight.computeIfAbsent(source.constant, weight -> consumer(op, source)));
            }
        });
        byWeight.forEach((weight, consumer) -> byName.put(weight.name(), consumer));
        structure.stream().blocks().forEach(block -> inside.addAll(block.ops()));
    }

    /** Finds the products of a model. */
    public static LinearLayers of(Structure structure) {
        return new LinearLayers(structure);
    }

    /** All products whose weight may be changed, in order of execution. */
    public List<LinearLayer> all() {
        return List.copyOf(byWeight.values());
    }

    /** The product with the weight of this name; null if there is none whose weight may be changed. */
    public LinearLayer reading(String weight) {
        return byName.get(weight);
    }

    /** Which of some constants are weights of products that may be changed. */
    public Set<Value> weights(Collection<Value> constants) {
        Set<Value> found = new HashSet<>(constants);
        found.removeIf(value -> !byWeight.containsKey(value));
        return found;
    }

    /** Why the weights of other products may not be changed, in order of execution. */
    public Map<Op, String> problems() {
        Map<Op, String> sorted = new LinkedHashMap<>();
        problems.keySet().stream()
                .sorted(Comparator.comparingInt(Op::index))
                .forEach(op -> sorted.put(op, problems.get(op)));
        return sorted;
    }

    /** The products that sum over {@code dimension}, in order of execution; without those of {@link #problem}. */
    public List<LinearLayer> of(Dimension dimension) {
        return applications(dimension).stream()
                .map(byOp::get)
                .filter(found -> found != null)
                .distinct()
                .toList();
    }

    /** The applications that compute a product: one, but for a product that several branches of an If have. */
    public List<Op> applications(LinearLayer consumer) {
        return byOp.entrySet().stream()
                .filter(entry -> entry.getValue().equals(consumer))
                .map(Map.Entry::getKey)
                .sorted(Comparator.comparingInt(Op::index))
                .toList();
    }

    /** Why not all of the products that sum over {@code dimension} are known and may be changed; null if they are. */
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
     * A budget for a method that needs to know and change the products: dimensions for which that is not possible are left
     * whole, with a warning.
     *
     * @param ofLoss whether the method measures errors of all products by what they do to the loss, so that those of different
     *     layers can be added
     * @param method how messages name the method
     * @throws UserException if nothing that the budget names is left, or it names layers or blocks
     */
    public Budget restrict(Budget budget, Structure structure, boolean ofLoss, String method, Log log) {
        if (budget.prune().layers() || budget.prune().blocks()) {
            throw new UserException(method + " compares heads and channels, not whole layers or blocks; prune those, or"
                    + " take another method");
        }
        List<Dimension> asked = structure.dimensions().stream()
                .filter(dimension ->
                        dimension.isPrunable() && budget.prune().roles().contains(dimension.role()))
                .toList();
        List<Dimension> impossible = asked.stream()
                .filter(dimension -> reason(dimension, ofLoss) != null)
                .toList();
        if (impossible.isEmpty()) {
            return budget;
        }
        Dimension first = impossible.get(0);
        String why = first.name() + ", " + reason(first, ofLoss);
        if (impossible.size() == asked.size()) {
            String words = asked.stream()
                    .map(dimension -> PruneSet.word(dimension.role()))
                    .distinct()
                    .collect(Collectors.joining(" and no "));
            throw new UserException(method + " can prune no " + words + " in this model: " + why
                    + "; prune something else, or take another method");
        }
        log.warn(impossible.size() + " of " + asked.size() + " dimensions are left whole by " + method + ": " + why);
        List<String> protect = new ArrayList<>(budget.protect());
        impossible.forEach(dimension -> protect.add(dimension.name()));
        return budget.withProtection(protect, budget.skipFirst(), budget.skipLast());
    }

    /**
     * Why units of a dimension cannot be scored by the products that sum over it; null if they can.
     *
     * @param ofLoss whether errors of different products can be added
     */
    public String reason(Dimension dimension, boolean ofLoss) {
        if (dimension.role() != Role.HIDDEN) {
            return problem(dimension);
        }
        if (!ofLoss) {
            return "it runs through all layers, so no product alone decides about it";
        }
        return deciding(dimension).isEmpty() ? problem(dimension) : null;
    }

    /**
     * The products whose errors say what a unit is worth: those that sum over it; for the hidden width only those of residual
     * blocks, since the gradients of as many outputs as there are tokens have no second moment that fits memory.
     */
    public List<LinearLayer> deciding(Dimension dimension) {
        List<LinearLayer> all = of(dimension);
        return dimension.role() != Role.HIDDEN
                ? all
                : all.stream().filter(this::isInside).toList();
    }

    /** Whether a product is in a residual block. */
    public boolean isInside(LinearLayer consumer) {
        return applications(consumer).stream().anyMatch(inside::contains);
    }

    /** Whether an application is in a residual block. */
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

    private LinearLayer consumer(Op op, Source source) {
        int axis = rowAxis(op) == 0 ^ source.transposed ? 0 : 1;
        Use use = source.constant.uses().get(0);
        Dim[] dims = analysis.operand(use.op(), use.input());
        return new LinearLayer(
                source.constant, axis, dims[axis], dims[1 - axis], op.node().label());
    }

    /** The axis of the second operand that a product sums over. */
    private static int rowAxis(Op op) {
        return op.node().intAttribute("transB", 0) == 0 ? 0 : 1;
    }

    private static Source source(Op op) {
        Node node = op.node();
        boolean product = node.is("MatMul") || node.is("Gemm") || node.is("FusedMatMul");
        if (!product) {
            return Source.refused("is no product with a plain floating-point matrix");
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
                return Source.refused("has a matrix that node " + before.node().label() + " makes");
            }
            if (moved) {
                List<Long> order = before.node().intsAttribute("perm");
                transposed ^= order == null || !order.equals(List.of(0L, 1L));
            }
            matrix = before.input(0);
        }
        Tensor tensor = matrix.constant();
        if (tensor.rank() != 2) {
            return Source.refused("has a stack of matrices");
        }
        if (!tensor.dtype().isFloat()) {
            return Source.refused("is no product with a plain floating-point matrix");
        }
        return new Source(matrix, transposed, null);
    }

    /** Why a weight may not be changed although its product is plain; null if it may. */
    private static String hindrance(Value weight, List<Op> products) {
        if (products.size() == 1 && !products.get(0).branch().isEmpty()) {
            return "is in one branch of an If, and calibration does not run the other";
        }
        for (Op first : products) {
            for (Op second : products) {
                if (!first.equals(second) && !exclude(first, second)) {
                    return "shares its weight with node "
                            + (first.index() < second.index() ? second : first)
                                    .node()
                                    .label();
                }
            }
        }
        return otherReader(weight, products);
    }

    private static String otherReader(Value value, List<Op> products) {
        for (Use use : value.uses()) {
            Op op = use.op();
            boolean moved = op.node().is("Transpose")
                    || op.node().is("Cast")
                    || op.node().is("Identity");
            String other = moved
                    ? otherReader(op.output(0), products)
                    : products.contains(op)
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
