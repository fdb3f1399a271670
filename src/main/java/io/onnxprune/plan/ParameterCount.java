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
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.CountedConstant.Extents;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.function.ToDoubleFunction;
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
     */
    public record Size(long parameters, long bytes) {
        private Size times(double share) {
            return new Size(Math.round(share * parameters), Math.round(share * bytes));
        }

        Size minus(Size other) {
            return new Size(parameters - other.parameters, bytes - other.bytes);
        }
    }

    private final Structure structure;
    private final Liveness liveness;
    private final StoredParameters stored;
    private final List<CountedConstant> constants = new ArrayList<>();
    private final Map<Tensor, CountedConstant.Owner> owners;
    private final Map<Dim.Atom, int[]> constantsByAtom = new HashMap<>();
    private final Size dense;

    private ParameterCount(Structure structure) {
        this.structure = structure;
        this.liveness = new Liveness(structure);
        this.stored = new StoredParameters(structure);
        Map<Tensor, Use> firstUses = new HashMap<>();
        structure
                .analysis()
                .constantUses()
                .keySet()
                .forEach(
                        use -> firstUses.putIfAbsent(use.op().input(use.input()).constant(), use));
        Set<Tensor> tensors = new HashSet<>();
        this.owners = CountedConstant.owners(structure);
        collect(structure.analysis().program().model().graph(), tensors, firstUses);
        indexConstants();
        this.dense = start().size();
    }

    /** Counts the model of {@code structure}. */
    public static ParameterCount of(Structure structure) {
        return new ParameterCount(structure);
    }

    /** The size of the dense model. */
    public Size dense() {
        return dense;
    }

    /** The size of the pruned model under {@code plan}. */
    public Size under(Plan plan) {
        return running(plan).size();
    }

    private Running running(Plan plan) {
        Running running = start();
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
        Running running = start();
        running.remove(blocks);
        return removedDimensions(running);
    }

    private Set<String> removedDimensions(Running running) {
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
        Running running = start();
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
        Running running = start();
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
        return liveness.deadWithout(blocks);
    }

    /** A count that follows one change after another, starting with the dense model. */
    Running start() {
        return new Running();
    }

    private void collect(Graph graph, Set<Tensor> seen, Map<Tensor, Use> firstUses) {
        graph.initializers().values().forEach(tensor -> add(tensor, seen, firstUses));
        for (Node node : graph.nodes()) {
            for (Attribute attribute : node.attributes().values()) {
                if (attribute instanceof Attribute.Constant constant) {
                    add(constant.tensor(), seen, firstUses);
                } else if (attribute instanceof Attribute.Body body) {
                    collect(body.graph(), seen, firstUses);
                }
            }
        }
    }

    private void add(Tensor tensor, Set<Tensor> seen, Map<Tensor, Use> firstUses) {
        if (!seen.add(tensor)) {
            return;
        }
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

    private void indexConstants() {
        Map<Dim.Atom, List<Integer>> found = new HashMap<>();
        for (int index = 0; index < constants.size(); index++) {
            int constant = index;
            constants.get(index).stored().axes().stream()
                    .flatMap(axis -> axis.atoms().stream())
                    .distinct()
                    .forEach(atom -> found.computeIfAbsent(atom, key -> new ArrayList<>())
                            .add(constant));
            CountedConstant.Owner owner = constants.get(index).owner();
            if (owner != null) {
                found.computeIfAbsent(owner.atom(), key -> new ArrayList<>()).add(constant);
            }
        }
        found.forEach((atom, indices) -> constantsByAtom.put(
                atom, indices.stream().mapToInt(Integer::intValue).toArray()));
    }

    /** Counts of kept units, and the size of the model under them. Not thread-safe. */
    final class Running implements Dim.Keep {
        private static final int[] NONE = {};

        private final Map<Dim.Atom, Integer> counts = new HashMap<>();
        private final Map<Dim.Atom, int[]> places = new HashMap<>();
        private final Size[] sizes = new Size[constants.size()];
        private final boolean[] dead = new boolean[constants.size()];
        private long parameters;
        private long bytes;

        private Running() {
            for (int index = 0; index < sizes.length; index++) {
                CountedConstant constant = constants.get(index);
                sizes[index] = sizeOf(constant);
                add(sizes[index], 1);
            }
        }

        @Override
        public int[] kept(Dim.Atom atom) {
            throw new UnsupportedOperationException("only counts are known");
        }

        @Override
        public long count(Dim.Atom atom) {
            Integer count = counts.get(atom);
            return count == null ? -1 : count;
        }

        Size size() {
            return new Size(parameters, bytes);
        }

        /**
         * Says in which order the units of a dimension go, so that constants that only one of them uses go with it. Without
         * an order, they are counted in part.
         */
        void order(Dimension dimension, int[] firstToGo) {
            int[] place = new int[firstToGo.length];
            for (int i = 0; i < firstToGo.length; i++) {
                place[firstToGo[i]] = i;
            }
            places.put(dimension.atom(), place);
        }

        private Size sizeOf(CountedConstant constant) {
            Dim.Atom owner = constant.ownerAtom();
            Integer count = owner == null ? null : counts.get(owner);
            Size whole = constant.size(this);
            return count == null ? whole : whole.times(constant.share(count, places.get(owner)));
        }

        /** Sets the number of kept units of {@code dimension}. Only the constants along it are recounted. */
        void keep(Dimension dimension, int count) {
            counts.put(dimension.atom(), count);
            for (int index : constantsByAtom.getOrDefault(dimension.atom(), NONE)) {
                CountedConstant constant = constants.get(index);
                Size size = sizeOf(constant);
                if (!dead[index]) {
                    add(size.minus(sizes[index]), 1);
                }
                sizes[index] = size;
            }
        }

        /** The number of kept units of {@code dimension}. */
        int kept(Dimension dimension) {
            Integer count = counts.get(dimension.atom());
            return count == null ? dimension.size() : count;
        }

        /** The size that would be saved if {@code dimensions} kept {@code count} units each. Changes nothing. */
        Size lossOf(List<Dimension> dimensions, int count) {
            Size before = size();
            int[] current = dimensions.stream().mapToInt(this::kept).toArray();
            dimensions.forEach(dimension -> keep(dimension, count));
            Size after = size();
            for (int i = 0; i < current.length; i++) {
                keep(dimensions.get(i), current[i]);
            }
            return before.minus(after);
        }

        /**
         * The size of the model, in parameters or bytes, if the given atoms had these numbers of units, which may be
         * fractions.
         */
        double sizeWith(Map<Dim.Atom, Double> units, boolean inBytes) {
            ToDoubleFunction<Dim.Atom> count = atom ->
                    units.getOrDefault(atom, (double) (counts.containsKey(atom) ? counts.get(atom) : atom.size(0)));
            double size = 0;
            for (int index = 0; index < sizes.length; index++) {
                CountedConstant constant = constants.get(index);
                if (dead[index]) {
                    continue;
                }
                boolean owned = units.containsKey(constant.ownerAtom());
                if (!owned
                        && constant.stored().axes().stream()
                                .noneMatch(axis -> axis.atoms().stream().anyMatch(units::containsKey))) {
                    size += inBytes ? sizes[index].bytes : sizes[index].parameters;
                } else {
                    double left = owned
                            ? units.get(constant.ownerAtom()) / constant.owner().units()
                            : 1;
                    size += left * constant.fraction(count, inBytes);
                }
            }
            return size;
        }

        /** Removes exactly the residual blocks of {@code removed}. */
        void remove(BitSet removed) {
            Set<Tensor> unused = liveness.deadWithout(removed);
            for (int index = 0; index < sizes.length; index++) {
                boolean dies = unused.contains(constants.get(index).tensor());
                if (dies != dead[index]) {
                    add(sizes[index], dies ? -1 : 1);
                    dead[index] = dies;
                }
            }
        }

        private void add(Size size, int sign) {
            parameters += sign * size.parameters;
            bytes += sign * size.bytes;
        }
    }
}
