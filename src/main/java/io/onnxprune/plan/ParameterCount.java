// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Attribute;
import io.onnxprune.ir.DType;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.ToDoubleFunction;

/**
 * Parameters and stored bytes of a model as a function of what stays. Parameters are the elements of floating-point
 * constants of rank one and more (single numbers and tables of rotary angles or masks excepted), and of quantised
 * weights, which count what they stand for, not their packed bytes. Bytes are those of every constant. A constant that
 * is read in several places counts once, with the dimensions of the first.
 */
public final class ParameterCount {
    /** Parameters, and bytes of all constants as stored. */
    public record Size(long parameters, long bytes) {
        Size minus(Size other) {
            return new Size(parameters - other.parameters, bytes - other.bytes);
        }
    }

    /**
     * One constant.
     *
     * @param axes the dimensions of the axes that can change
     * @param fixed the product of the extents of the others
     * @param packed parameters in each element; 0 if it carries none
     */
    record Constant(Tensor tensor, List<Dim> axes, long fixed, int packed) {
        long elements(Dim.Keep keep) {
            long elements = fixed;
            for (Dim axis : axes) {
                elements *= axis.size(0, keep);
            }
            return elements;
        }

        Size size(long elements) {
            long bytes = tensor.opaque() == null ? tensor.dtype().bytes(elements) : tensor.opaque().length;
            return new Size(elements * packed, bytes);
        }
    }

    private final Structure structure;
    private final Liveness liveness;
    private final List<Constant> constants = new ArrayList<>();
    private final Map<Dim.Atom, int[]> carriers = new HashMap<>();
    private final Size whole;

    private ParameterCount(Structure structure) {
        this.structure = structure;
        this.liveness = new Liveness(structure);
        Map<Tensor, Use> firstUses = new HashMap<>();
        structure
                .analysis()
                .constantUses()
                .keySet()
                .forEach(
                        use -> firstUses.putIfAbsent(use.op().input(use.input()).constant(), use));
        Set<Tensor> tensors = new HashSet<>();
        collect(structure.analysis().program().model().graph(), tensors, firstUses);
        indexCarriers();
        this.whole = start().size();
    }

    /** Counts the model that {@code structure} describes. */
    public static ParameterCount of(Structure structure) {
        return new ParameterCount(structure);
    }

    /** The model as it is. */
    public Size whole() {
        return whole;
    }

    /** What is left under {@code plan}. */
    public Size under(Plan plan) {
        Running running = start();
        for (Dimension dimension : structure.dimensions()) {
            int[] kept = plan.keep().get(dimension.name());
            if (kept != null) {
                running.keep(dimension, kept.length);
            }
        }
        running.remove(blocksWithout(plan));
        return running.size();
    }

    /** The names of the dimensions of which nothing is left under {@code plan}, since their blocks go as a whole. */
    public Set<String> gone(Plan plan) {
        return gone(blocksWithout(plan));
    }

    /** The names of the dimensions of which nothing is left without the given blocks. */
    Set<String> gone(BitSet blocks) {
        Running running = start();
        running.remove(blocks);
        Set<String> gone = new LinkedHashSet<>();
        for (Dimension dimension : structure.dimensions()) {
            List<Dimension> alone = List.of(dimension);
            boolean counted = start().lossOf(alone, 0).bytes() > 0;
            if (counted && running.lossOf(alone, 0).bytes() == 0) {
                gone.add(dimension.name());
            }
        }
        return gone;
    }

    private BitSet blocksWithout(Plan plan) {
        List<Block> blocks = structure.stream().blocks();
        BitSet removed = new BitSet();
        for (int index = 0; index < blocks.size(); index++) {
            removed.set(index, plan.removesBlock(index, blocks.get(index).layer()));
        }
        return removed;
    }

    /** What goes with one unit of {@code dimension} while everything else is whole. */
    public Size unit(Dimension dimension) {
        Running running = start();
        running.keep(dimension, dimension.size() - 1);
        return whole.minus(running.size());
    }

    /** What goes with the residual blocks of the stream at {@code indices} alone. */
    public Size blocks(int... indices) {
        return removed(bits(indices));
    }

    /** What goes with all residual blocks of layer {@code index}. */
    public Size layer(int index) {
        return removed(bits(PrunableBlocks.layers(structure).get(index)));
    }

    private Size removed(BitSet blocks) {
        Running running = start();
        running.remove(blocks);
        return whole.minus(running.size());
    }

    static BitSet bits(int... indices) {
        BitSet bits = new BitSet();
        for (int index : indices) {
            bits.set(index);
        }
        return bits;
    }

    /** The constants that only the given blocks read. */
    Set<Tensor> constantsOf(BitSet blocks) {
        return liveness.deadWithout(blocks);
    }

    /** A count that follows one change after another, starting with the whole model. */
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
        constants.add(new Constant(tensor, axes, fixed, parametersPerElement(tensor, use)));
    }

    private int parametersPerElement(Tensor tensor, Use use) {
        if (tensor.rank() == 0 || tensor.elements() == 1 || use != null && isTable(tensor, use)) {
            return 0;
        }
        if (tensor.dtype().isFloat()) {
            return 1;
        }
        if (use == null || tensor.dtype().bits() == 0 || tensor.dtype().bits() > 8 || tensor.dtype() == DType.BOOL) {
            return 0;
        }
        Node node = use.op().node();
        if (node.is("MatMulNBits")) {
            int bits = (int) node.intAttribute("bits", 4);
            return use.input() == 1 ? 8 / bits : 0;
        }
        // Zero points are integers of the weight's type, but no weights; they come after the scale, or are vectors.
        boolean zeroPoint = use.input() >= 2 && node.op().startsWith("Dequantize");
        return tensor.rank() == 1 || zeroPoint ? 0 : 1;
    }

    /**
     * Whether a constant is a table (rotary angles, a mask) and no parameter: none of its axes is a dimension of the
     * network, and nothing is multiplied by it as by a matrix.
     */
    private boolean isTable(Tensor tensor, Use use) {
        boolean ofNetwork = structure.stream().width().isEmpty()
                || Arrays.stream(structure.analysis().constantUses().getOrDefault(use, new Dim[0]))
                        .flatMap(dim -> dim.atoms().stream())
                        .anyMatch(atom -> structure.role(atom) != Role.OTHER);
        boolean matrix =
                Arrays.stream(tensor.shape()).filter(extent -> extent > 1).count() > 1;
        boolean multiplies = structure.analysis().facts().contractions().stream()
                .anyMatch(contraction -> contraction.op().equals(use.op()));
        return !ofNetwork && !(matrix && multiplies);
    }

    private void indexCarriers() {
        Map<Dim.Atom, List<Integer>> found = new HashMap<>();
        for (int index = 0; index < constants.size(); index++) {
            int constant = index;
            constants.get(index).axes().stream()
                    .flatMap(axis -> axis.atoms().stream())
                    .distinct()
                    .forEach(atom -> found.computeIfAbsent(atom, key -> new ArrayList<>())
                            .add(constant));
        }
        found.forEach((atom, indices) ->
                carriers.put(atom, indices.stream().mapToInt(Integer::intValue).toArray()));
    }

    /** Counts of units that stay, and the size of the model under them. Not safe for use by several threads. */
    final class Running implements Dim.Keep {
        private static final int[] NONE = {};

        private final Map<Dim.Atom, Integer> counts = new HashMap<>();
        private final Size[] sizes = new Size[constants.size()];
        private final boolean[] dead = new boolean[constants.size()];
        private long parameters;
        private long bytes;

        private Running() {
            for (int index = 0; index < sizes.length; index++) {
                Constant constant = constants.get(index);
                sizes[index] = constant.size(constant.elements(this));
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

        /** Keeps {@code count} units of {@code dimension} from now on. Only the constants that carry it are recounted. */
        void keep(Dimension dimension, int count) {
            counts.put(dimension.atom(), count);
            for (int index : carriers.getOrDefault(dimension.atom(), NONE)) {
                Constant constant = constants.get(index);
                Size size = constant.size(constant.elements(this));
                if (!dead[index]) {
                    add(size.minus(sizes[index]), 1);
                }
                sizes[index] = size;
            }
        }

        /** The number of units of {@code dimension} that stay. */
        int kept(Dimension dimension) {
            Integer count = counts.get(dimension.atom());
            return count == null ? dimension.size() : count;
        }

        /** What would go if {@code dimensions} were left with {@code count} units each; nothing changes. */
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
         * What of the model would be left, in parameters or bytes, if the given atoms had so many units, which need not
         * be whole numbers.
         */
        double leftWith(Map<Dim.Atom, Double> units, boolean inBytes) {
            ToDoubleFunction<Dim.Atom> count = atom ->
                    units.getOrDefault(atom, (double) (counts.containsKey(atom) ? counts.get(atom) : atom.size(0)));
            double left = 0;
            for (int index = 0; index < sizes.length; index++) {
                Constant constant = constants.get(index);
                if (dead[index]) {
                    continue;
                }
                if (constant.axes.stream()
                        .noneMatch(axis -> axis.atoms().stream().anyMatch(units::containsKey))) {
                    left += inBytes ? sizes[index].bytes : sizes[index].parameters;
                    continue;
                }
                double elements = constant.fixed;
                for (Dim axis : constant.axes) {
                    elements *= axis.extent(count);
                }
                left += elements * (inBytes ? constant.tensor.dtype().bits() / 8.0 : constant.packed);
            }
            return left;
        }

        /** Takes exactly the residual blocks of {@code removed} out. */
        void remove(BitSet removed) {
            Set<Tensor> gone = liveness.deadWithout(removed);
            for (int index = 0; index < sizes.length; index++) {
                boolean dies = gone.contains(constants.get(index).tensor());
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
