// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.latency;

import io.onnxprune.dims.AnalysisFacts.Contraction;
import io.onnxprune.dims.AnalysisFacts.Distribution;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.Workload;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.latency.ProductShape.Form;
import io.onnxprune.latency.ProductShape.Operand;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.jspecify.annotations.Nullable;

/**
 * Finds the matrix products of a model: linear layers, experts, convolutions as products of their patches, and the two products of
 * attention. Operators that compute several products have several.
 */
final class Products {
    private static final Operand SCORES = Operand.of(Form.SCORES, false);
    private static final Operand VALUES = Operand.of(Form.ACTIVATIONS, false);

    private final DimensionAnalysis analysis;
    private final Workload work;
    private final List<Product> found = new ArrayList<>();
    private final Set<Value> inBranches = new HashSet<>();

    private Products(Structure structure, Workload work) {
        this.analysis = structure.analysis();
        this.work = work;
    }

    /** The products of one run of a workload. */
    static List<Product> of(Structure structure, Workload work) {
        Products products = new Products(structure, work);
        for (Contraction contraction : products.analysis.facts().contractions()) {
            if (contraction.withConstant()) {
                products.addLinear(contraction);
            } else {
                products.addProduct(contraction);
            }
        }
        products.analysis.facts().distributions().forEach(products::addFused);
        return products.found;
    }

    private void addLinear(Contraction contraction) {
        Op op = contraction.op();
        Node node = op.node();
        int input = weightOperand(contraction);
        @Nullable Value weight = input < 0 ? null : op.input(input).origin();
        Dim[] out = analysis.dims(op.output(0));
        // Of the branches of an If, which share their weights, one runs.
        if (out == null || !op.branch().isEmpty() && weight != null && !inBranches.add(weight)) {
            return;
        }
        boolean half = weight != null && weight.constant().dtype() == DType.FLOAT16;
        if (node.is("MatMulNBits")) {
            Operand blocks = new Operand(
                    Form.BLOCKS,
                    op.input(2).constant() != null && op.input(2).constant().dtype() == DType.FLOAT16,
                    (int) node.intAttribute("bits", 4),
                    (int) node.intAttribute("block_size", 32),
                    (int) node.intAttribute("accuracy_level", 0));
            add(op, null, rows(out), List.of(List.of(), List.of(contraction.dim()), last(out)), blocks);
            return;
        }
        Dim @Nullable [] matrix = input < 0 ? null : analysis.operand(op, input);
        if (matrix == null || matrix.length == 1) {
            add(op, weight, rows(out), List.of(List.of(), List.of(contraction.dim()), last(out)), matrix(half));
        } else if (node.op().endsWith("MoE")) {
            addExperts(contraction, matrix, weight, half);
        } else if (node.op().contains("Conv")) {
            List<Dim> inner = new ArrayList<>(List.of(contraction.dim()));
            inner.addAll(Arrays.asList(matrix).subList(2, matrix.length));
            add(op, weight, work.rows(), List.of(List.of(), inner, List.of(matrix[0])), matrix(half));
        } else {
            boolean stack = matrix.length > 2;
            List<Dim> columns = others(matrix, contraction.dim(), stack ? 1 : 0);
            add(
                    op,
                    weight,
                    rows(out),
                    List.of(stack ? List.of(matrix[0]) : List.of(), List.of(contraction.dim()), columns),
                    stack ? Operand.of(Form.ACTIVATIONS, half) : matrix(half));
        }
    }

    /** Each token goes to some experts, so that they share the rows. */
    private void addExperts(Contraction contraction, Dim[] matrix, @Nullable Value weight, boolean half) {
        Op op = contraction.op();
        long experts = matrix[0].size(0);
        long chosen = work.rows() * op.node().intAttribute("k", 1);
        @Nullable Dim busy = experts <= chosen ? matrix[0] : null;
        long copies = busy == null ? chosen : 1;
        List<List<Dim>> axes = List.of(
                busy == null ? List.of() : List.of(busy),
                List.of(contraction.dim()),
                others(matrix, contraction.dim(), 1));
        for (long copy = 0; copy < copies; copy++) {
            add(op, weight, Math.max(1, chosen / experts), axes, Operand.of(Form.ACTIVATIONS, half));
        }
    }

    /** The axes of a matrix that are not summed over, from axis {@code first}. */
    private static List<Dim> others(Dim[] matrix, Dim summed, int first) {
        return IntStream.range(first, matrix.length)
                .mapToObj(axis -> matrix[axis])
                .filter(dim -> dim.atoms().stream().noneMatch(summed.atoms()::contains))
                .toList();
    }

    private static List<Dim> last(Dim[] dims) {
        return List.of(dims[dims.length - 1]);
    }

    private static Operand matrix(boolean half) {
        return Operand.of(Form.MATRIX, half);
    }

    /** The constant operand that has the summed dimension; -1 if there is none. */
    private int weightOperand(Contraction contraction) {
        Op op = contraction.op();
        for (int input = 0; input < op.inputs().size(); input++) {
            Value value = op.input(input);
            if (value != null
                    && value.origin().constant() != null
                    && value.origin().constant().rank() >= 2) {
                Dim[] dims = analysis.operand(op, input);
                boolean sums = dims != null
                        && Arrays.stream(dims)
                                .anyMatch(dim -> dim.atoms().stream()
                                        .anyMatch(contraction.dim().atoms()::contains));
                if (sums) {
                    return input;
                }
            }
        }
        return -1;
    }

    /** The rows of a result: all tokens of a step, unless the model has selected some before. */
    private long rows(Dim[] out) {
        List<Dim> leading = Arrays.asList(out).subList(0, out.length - 1);
        return leading.stream().anyMatch(Dim::isDynamic)
                ? work.rows()
                : leading.stream().mapToLong(dim -> dim.size(0)).reduce(1, (a, b) -> a * b);
    }

    /** A product of two activations by an operator of its own. */
    private void addProduct(Contraction contraction) {
        Op op = contraction.op();
        Dim[] out = analysis.dims(op.output(0));
        boolean product = op.node().is("MatMul") || op.node().is("FusedMatMul");
        if (product && out != null && out.length > 2) {
            List<Dim> batch = withoutPositions(Arrays.asList(out).subList(0, out.length - 2));
            boolean scores = out[out.length - 1].isDynamic();
            add(op, null, work.rows(), List.of(batch, List.of(contraction.dim()), last(out)), scores ? SCORES : VALUES);
        }
    }

    /** The two products of attention that one operator computes. */
    private void addFused(Distribution distribution) {
        Op op = distribution.op();
        Dim[] out = analysis.dims(op.output(0));
        @Nullable Dim all = positions();
        if (op.node().is("Softmax") || out == null || out.length < 3 || all == null) {
            return;
        }
        List<Dim> heads = withoutPositions(distribution.batch());
        List<Dim> size = withoutPositions(last(out));
        size.removeAll(heads);
        add(op, null, work.rows(), List.of(heads, size, List.of(all)), SCORES);
        add(op, null, work.rows(), List.of(heads, List.of(all), size), VALUES);
    }

    private static List<Dim> withoutPositions(List<Dim> batch) {
        return batch.stream()
                .flatMap(dim -> dim.segments().size() == 1 ? dim.atoms().stream() : Stream.of())
                .filter(atom -> !atom.isDynamic())
                .map(atom -> (Dim) atom)
                .collect(Collectors.toCollection(ArrayList::new));
    }

    /** A dimension that varies from run to run; null if there is none. */
    private @Nullable Dim positions() {
        return analysis.program().inputs().stream()
                .map(analysis::dims)
                .filter(dims -> dims != null)
                .flatMap(Arrays::stream)
                .filter(Dim::isDynamic)
                .flatMap(dim -> dim.atoms().stream())
                .filter(Dim.Atom::isDynamic)
                .map(atom -> (Dim) atom)
                .findFirst()
                .orElse(null);
    }

    private void add(Op op, @Nullable Value weight, long rows, List<List<Dim>> axes, Operand operand) {
        found.add(new Product(op, weight, rows, work.positions(), axes, operand));
    }
}
