// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.CountedConstant.Extents;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.IntStream;

/**
 * Counts the parameters and stored bytes of a model under a plan. Every number counts that is not provably a table, a
 * size or a part of an encoding ({@link StoredParameters}). Quantised weights count as the weights that they represent.
 * Bytes are those of every constant. A constant with several uses counts once, with the dimensions of its first use.
 */
public final class ParameterCount {
    /**
     * The size of a model.
     *
     * @param parameters number of parameters
     * @param bytes stored bytes of all constants
     * @param other what the currency of the count adds to them ({@link Currency#parts})
     */
    public record Size(long parameters, long bytes, double other) {
        /** The size of constants alone. */
        public Size(long parameters, long bytes) {
            this(parameters, bytes, 0);
        }

        Size times(double share) {
            return new Size(Math.round(share * parameters), Math.round(share * bytes), share * other);
        }

        Size plus(Size more) {
            return new Size(parameters + more.parameters, bytes + more.bytes, other + more.other);
        }

        Size minus(Size less) {
            return new Size(parameters - less.parameters, bytes - less.bytes, other - less.other);
        }
    }

    private final Structure structure;
    private final Liveness liveness;
    private final StoredParameters stored;
    private final List<CountedConstant> constants = new ArrayList<>();
    private final Map<Tensor, Counted.Owner> owners;
    private final List<Counted> counted = new ArrayList<>();
    private final Map<Dim.Atom, int[]> byVariable = new HashMap<>();
    private final Currency currency;
    private final Size dense;

    private ParameterCount(Structure structure, Currency currency) {
        this.structure = structure;
        this.currency = currency;
        this.liveness = new Liveness(structure);
        this.stored = new StoredParameters(structure);
        Map<Tensor, Use> firstUses = new HashMap<>();
        structure
                .analysis()
                .constantUses()
                .keySet()
                .forEach(
                        use -> firstUses.putIfAbsent(use.op().input(use.input()).constant(), use));
        Set<Tensor> tensors = new LinkedHashSet<>();
        this.owners = CountedConstant.owners(structure);
        collect(structure.analysis().program().model().graph(), tensors);
        tensors.forEach(tensor -> add(tensor, firstUses));
        counted.addAll(constants);
        for (Currency.Part part : currency.parts(structure)) {
            Value weight = part.weight();
            counted.add(new Counted.OfCurrency(part, weight == null ? null : owners.get(weight.constant())));
        }
        index();
        this.dense = start().size();
    }

    /** Counts the model of {@code structure}. */
    public static ParameterCount of(Structure structure) {
        return of(structure, Currency.parameters());
    }

    /** Counts the model of {@code structure}, with the parts that a currency adds to its constants. */
    public static ParameterCount of(Structure structure, Currency currency) {
        return new ParameterCount(structure, currency);
    }

    /** The size of the dense model. */
    public Size dense() {
        return dense;
    }

    /** The size of the pruned model under {@code plan}. */
    public Size under(Plan plan) {
        return running(plan).size();
    }

    private RunningCount running(Plan plan) {
        RunningCount running = start();
        for (Dimension dimension : structure.dimensions()) {
            int[] kept = plan.keep().get(dimension.name());
            if (kept != null) {
                running.order(dimension, firstToGo(dimension, kept));
                running.keep(dimension, kept.length);
            }
        }
        running.remove(blocksWithout(plan));
        return running;
    }

    /** The units of a dimension, those first that are not kept. */
    private static int[] firstToGo(Dimension dimension, int[] kept) {
        int[] gone = IntStream.range(0, dimension.size())
                .filter(unit -> Arrays.binarySearch(kept, unit) < 0)
                .toArray();
        return IntStream.concat(Arrays.stream(gone), Arrays.stream(kept)).toArray();
    }

    /** The names of the dimensions that {@code plan} removes entirely, with their blocks or with units of others. */
    public Set<String> removedDimensions(Plan plan) {
        return removedDimensions(running(plan));
    }

    /** The names of the dimensions that disappear with the given blocks. */
    Set<String> removedDimensions(BitSet blocks) {
        RunningCount running = start();
        running.remove(blocks);
        return removedDimensions(running);
    }

    private Set<String> removedDimensions(RunningCount running) {
        Set<String> pruned = new LinkedHashSet<>();
        for (Dimension dimension : structure.dimensions()) {
            List<Dimension> single = List.of(dimension);
            boolean counted = start().lossOf(single, 0).bytes() > 0;
            if (counted && running.lossOf(single, 0).bytes() == 0) {
                pruned.add(dimension.name());
            }
        }
        return pruned;
    }

    private BitSet blocksWithout(Plan plan) {
        List<Block> blocks = structure.stream().blocks();
        BitSet removed = new BitSet();
        for (int index = 0; index < blocks.size(); index++) {
            removed.set(index, plan.removesBlock(index, blocks.get(index).layer()));
        }
        return removed;
    }

    /** The size that pruning one unit of {@code dimension} from the dense model saves. */
    public Size unit(Dimension dimension) {
        RunningCount running = start();
        running.keep(dimension, dimension.size() - 1);
        return dense.minus(running.size());
    }

    /** The size that pruning only the residual blocks at {@code indices} saves. */
    public Size blocks(int... indices) {
        return removed(bits(indices));
    }

    /** The size that pruning all residual blocks of layer {@code index} saves. */
    public Size layer(int index) {
        return removed(bits(PrunableBlocks.layers(structure).get(index)));
    }

    private Size removed(BitSet blocks) {
        RunningCount running = start();
        running.remove(blocks);
        return dense.minus(running.size());
    }

    static BitSet bits(int... indices) {
        BitSet bits = new BitSet();
        for (int index : indices) {
            bits.set(index);
        }
        return bits;
    }

    /**
     * Why some parameters can only be pruned with their blocks: they are operands of an operator without a rule, such as
     * a mixture of experts in one node. Empty if they are less than a hundredth of the parameters.
     */
    Optional<String> outOfReach() {
        Set<Op> unknown = structure.analysis().facts().unknown();
        long parameters = 0;
        Op example = null;
        for (CountedConstant constant : constants) {
            long held = constant.weights().count(Dim.Keep.ALL);
            Op reader = held == 0 ? null : stored.reader(constant.tensor(), unknown);
            if (reader != null) {
                parameters += held;
                example = example == null ? reader : example;
            }
        }
        double share = 100.0 * parameters / Math.max(1, dense.parameters());
        return share < 1
                ? Optional.empty()
                : Optional.of(String.format(
                        Locale.ROOT,
                        "%.0f %% of the parameters are in operators that cannot be pruned, such as node %s",
                        share,
                        example.node().label()));
    }

    /** The constants that only the given blocks use. */
    Set<Tensor> constantsOf(BitSet blocks) {
        return liveness.deadWithout(blocks).constants();
    }

    /** A count that follows one change after another, starting with the dense model. */
    RunningCount start() {
        return new RunningCount(counted, byVariable, liveness, currency);
    }

    /** Bytes of all constants that a graph stores, in subgraphs too. */
    public static long storedBytes(Graph graph) {
        Set<Tensor> tensors = new LinkedHashSet<>();
        collect(graph, tensors);
        return tensors.stream().mapToLong(ParameterCount::bytes).sum();
    }

    private static long bytes(Tensor tensor) {
        return tensor.opaque() == null ? tensor.dtype().bytes(tensor.elements()) : tensor.opaque().length;
    }

    private static void collect(Graph graph, Set<Tensor> found) {
        found.addAll(graph.initializers().values());
        for (Node node : graph.nodes()) {
            for (Attribute attribute : node.attributes().values()) {
                if (attribute instanceof Attribute.Constant constant) {
                    found.add(constant.tensor());
                } else if (attribute instanceof Attribute.Body body) {
                    collect(body.graph(), found);
                }
            }
        }
    }

    private void add(Tensor tensor, Map<Tensor, Use> firstUses) {
        Use use = firstUses.get(tensor);
        Dim[] dims = use == null ? null : structure.analysis().constantUses().get(use);
        List<Dim> axes = new ArrayList<>();
        long fixed = 1;
        for (int axis = 0; axis < tensor.rank(); axis++) {
            boolean follows = dims != null && !dims[axis].isDynamic() && dims[axis].size(0) == tensor.dim(axis);
            if (follows) {
                axes.add(dims[axis]);
            } else {
                fixed *= tensor.dim(axis);
            }
        }
        Extents elements = new Extents(axes, fixed);
        int each = stored.perElement(tensor);
        List<Dim> logical =
                each == 0 || use == null ? null : structure.analysis().quantisedMatrix(use);
        constants.add(new CountedConstant(
                tensor,
                elements,
                logical == null ? elements.times(each) : new Extents(logical, 1),
                owners.get(tensor)));
    }

    private void index() {
        Map<Dim.Atom, List<Integer>> found = new HashMap<>();
        for (int index = 0; index < counted.size(); index++) {
            Set<Dim.Atom> variables = new LinkedHashSet<>(counted.get(index).variables());
            if (counted.get(index).owner() != null) {
                variables.add(counted.get(index).ownerAtom());
            }
            for (Dim.Atom atom : variables) {
                found.computeIfAbsent(atom, key -> new ArrayList<>()).add(index);
            }
        }
        found.forEach((atom, indices) -> byVariable.put(
                atom, indices.stream().mapToInt(Integer::intValue).toArray()));
    }
}
