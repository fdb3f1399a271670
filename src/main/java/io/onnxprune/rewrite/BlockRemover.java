// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.diag.UserException;
import io.onnxprune.dims.ResidualStream;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Graph;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Node;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.plan.BlockRemoval;
import io.onnxprune.plan.Plan;
import java.util.ArrayList;
import java.util.BitSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * Removes residual blocks. Consumers of a block's sum use its base instead. The block's caches are removed from the
 * interface, those of later layers are renumbered, and unused nodes are dropped.
 */
public final class BlockRemover {
    private static final Pattern NUMBERED = Pattern.compile("(\\D*)(\\d+)(.*)");

    private final Structure structure;
    private final Model model;
    private final BlockRemoval removal;
    private final BitSet indices = new BitSet();
    private final List<Block> removed = new ArrayList<>();
    private final Map<String, String> renamed = new HashMap<>();
    private final Map<String, Node> replaced = new HashMap<>();
    private final Set<String> removedSums = new HashSet<>();

    private BlockRemover(Structure structure, Plan plan, Model model) {
        this.structure = structure;
        this.model = model;
        this.removal = BlockRemoval.of(structure);
        List<Block> blocks = structure.stream().blocks();
        for (int i = 0; i < blocks.size(); i++) {
            if (plan.removesBlock(i, blocks.get(i).layer())) {
                indices.set(i);
                removed.add(blocks.get(i));
            }
        }
    }

    /**
     * Removes the blocks that {@code plan} does not keep.
     *
     * @param structure structure of the original model
     * @param model a sliced form of that model
     * @throws UserException when a block cannot be removed
     */
    public static Model remove(Structure structure, Plan plan, Model model) {
        BlockRemover remover = new BlockRemover(structure, plan, model);
        return remover.removed.isEmpty() ? model : remover.run();
    }

    private Model run() {
        indices.stream().forEach(this::requireRemovable);
        removed.forEach(this::bypass);
        Set<String> removedValues = new HashSet<>();
        removal.droppedOutputs(indices).forEach(output -> removedValues.add(output.name()));
        Graph graph = model.graph();
        List<ValueInfo> outputs = graph.outputs().stream()
                .filter(output -> !removedValues.contains(output.name()))
                .toList();
        List<Node> nodes = rewired(graph, outputs);
        Graph cleaned = DeadCode.remove(graph, graph.withNodes(nodes).withInterface(graph.inputs(), outputs));
        checkCaches(cleaned);
        return model.withGraph(renumbered(cleaned));
    }

    private void requireRemovable(int index) {
        String obstacle = removal.obstacle(index);
        if (obstacle != null) {
            Block block = structure.stream().blocks().get(index);
            throw new UserException("layer " + block.layer() + " cannot be removed: its "
                    + block.kind().title() + " is " + obstacle + "; keep this layer, or prune heads and ffn only");
        }
    }

    /** Checks that a model without cache outputs does not take the past length from a cache input. */
    private void checkCaches(Graph graph) {
        if (graph.outputs().size() > 1) {
            return;
        }
        for (ValueInfo input : graph.givenInputs()) {
            if (structure.analysis().isState(structure.analysis().program().input(input.name()))) {
                throw new UserException(
                        "all blocks with an attention cache would be removed, but the model reads the number of"
                                + " past tokens from its cache input \"" + input.name()
                                + "\"; keep one of these blocks");
            }
        }
    }

    private void bypass(Block block) {
        Node node = block.add().node();
        String sum = ResidualStream.isSkipNormalization(block.add()) ? node.output(3) : node.output(0);
        if (!sum.isEmpty()) {
            renamed.put(sum, block.base().name());
        }
        if (ResidualStream.isSkipNormalization(block.add())) {
            replaced.put(
                    node.output(0),
                    SkipNormalization.normalization(node, block.base().name()));
        } else {
            removedSums.add(node.output(0));
        }
    }

    private String resolve(String name) {
        String current = name;
        while (renamed.containsKey(current)) {
            current = renamed.get(current);
        }
        return current;
    }

    private List<Node> rewired(Graph graph, List<ValueInfo> outputs) {
        Set<String> wanted = new HashSet<>();
        outputs.forEach(output -> wanted.add(output.name()));
        Map<String, String> sideShapes = sideShapes();
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            if (removedSums.contains(node.output(0))) {
                if (wanted.contains(node.output(0))) {
                    nodes.add(Node.of(
                            node.name(), "Identity", List.of(resolve(node.output(0))), node.outputs(), Map.of()));
                }
                continue;
            }
            Node changed = replaced.getOrDefault(node.output(0), node);
            boolean shape = node.is("Shape") && sideShapes.containsKey(node.input(0));
            nodes.add(
                    shape
                            ? changed.withInput(0, sideShapes.get(node.input(0)))
                            : changed.withInputs(
                                    changed.inputs().stream().map(this::resolve).toList()));
        }
        return nodes;
    }

    /**
     * Replacements for shapes of removed cache inputs. Models often take lengths from the first layer's cache. If that
     * layer is removed, the same extents are taken from a kept cache input of the same shape.
     *
     * @return from removed to kept cache inputs
     */
    private Map<String, String> sideShapes() {
        Set<Op> inside = removal.dropped(indices);
        Set<Value> removedValues = new HashSet<>();
        for (Op op : inside) {
            op.inputs().stream()
                    .filter(value -> value != null)
                    .map(Value::origin)
                    .forEach(removedValues::add);
        }
        List<Value> keptInputs = structure.analysis().program().inputs().stream()
                .filter(input -> !removedValues.contains(input))
                .toList();
        Map<String, String> result = new HashMap<>();
        for (Op op : structure.analysis().program().ops()) {
            if (op.node().is("Shape") && !inside.contains(op)) {
                Value source = op.input(0);
                boolean cache = removedValues.contains(source.origin())
                        && source.origin().producer() == null;
                keptInputs.stream()
                        .filter(kept -> cache && sameLengths(source, kept))
                        .findFirst()
                        .ifPresent(kept -> result.put(source.name(), kept.name()));
            }
        }
        return result;
    }

    /** Whether two cache inputs are equal on every axis whose extent varies. */
    private boolean sameLengths(Value dropped, Value kept) {
        long[] first = structure.analysis().trace().shape(dropped, 0);
        long[] second = structure.analysis().trace().shape(kept, 0);
        if (first == null || second == null || first.length < 3 || first.length != second.length) {
            return false;
        }
        long[] firstAgain = structure.analysis().trace().shape(dropped, 1);
        for (int axis = 0; axis < first.length; axis++) {
            if (first[axis] != firstAgain[axis] && first[axis] != second[axis]) {
                return false;
            }
        }
        return true;
    }

    /** Makes the numbers in the names of cache inputs and outputs consecutive again. */
    private Graph renumbered(Graph graph) {
        Map<String, String> names = new HashMap<>();
        renumber(model.graph().givenInputs(), graph.givenInputs(), names);
        renumber(model.graph().outputs(), graph.outputs(), names);
        List<Node> nodes = new ArrayList<>();
        for (Node node : graph.nodes()) {
            nodes.add(node.withInputs(rename(node.inputs(), names)).withOutputs(rename(node.outputs(), names)));
        }
        return graph.withNodes(nodes)
                .withValues(renameInfos(graph.values(), names))
                .withInterface(renameInfos(graph.inputs(), names), renameInfos(graph.outputs(), names));
    }

    private static void renumber(List<ValueInfo> before, List<ValueInfo> after, Map<String, String> names) {
        Map<String, TreeMap<Integer, String>> families = new LinkedHashMap<>();
        for (ValueInfo info : after) {
            Matcher matcher = NUMBERED.matcher(info.name());
            if (matcher.matches()) {
                families.computeIfAbsent(matcher.group(1) + "#" + matcher.group(3), key -> new TreeMap<>())
                        .put(Integer.parseInt(matcher.group(2)), info.name());
            }
        }
        families.forEach((family, members) -> {
            long membersBefore = before.stream()
                    .map(info -> NUMBERED.matcher(info.name()))
                    .filter(matcher -> matcher.matches() && family.equals(matcher.group(1) + "#" + matcher.group(3)))
                    .count();
            if (membersBefore > members.size()) {
                int number = 0;
                for (String name : members.values()) {
                    names.put(name, family.replace("#", Integer.toString(number++)));
                }
            }
        });
    }

    private static List<String> rename(List<String> values, Map<String, String> names) {
        return values.stream().map(name -> names.getOrDefault(name, name)).toList();
    }

    private static List<ValueInfo> renameInfos(List<ValueInfo> values, Map<String, String> names) {
        return values.stream()
                .map(value -> value.withName(names.getOrDefault(value.name(), value.name())))
                .toList();
    }
}
