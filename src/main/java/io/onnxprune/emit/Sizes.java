// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.emit;

import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.EnumSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import java.util.TreeSet;
import java.util.function.IntUnaryOperator;
import java.util.stream.IntStream;

/**
 * The numbers that configuration files state about a decoder, before and after pruning, by layer. A number in a file
 * is matched by its old value, so that an unrelated number is not changed.
 */
final class Sizes {
    /** A kind of number. */
    enum Kind {
        HEADS("attention heads"),
        KV_HEADS("key and value heads"),
        FFN("FFN channels"),
        EXPERTS("experts"),
        HIDDEN("hidden channels");

        private final String title;

        Kind(String title) {
            this.title = title;
        }

        String title() {
            return title;
        }
    }

    /** One number before and after pruning. */
    record Change(int before, int after) {
        boolean isChange() {
            return before != after;
        }
    }

    private final Structure structure;
    private final Plan plan;
    private final List<Integer> layers = new ArrayList<>();
    private final List<Integer> attentionLayers = new ArrayList<>();
    private final Map<Kind, Map<Integer, List<Change>>> changes = new EnumMap<>(Kind.class);
    private final Set<String> gone;
    private boolean split;

    private Sizes(Structure structure, Plan plan) {
        this.structure = structure;
        this.plan = plan;
        this.gone = ParameterCount.of(structure).removedDimensions(plan);
    }

    static Sizes of(Structure structure, Plan plan) {
        Sizes sizes = new Sizes(structure, plan);
        sizes.findLayers();
        for (Kind kind : Kind.values()) {
            sizes.changes.put(kind, new TreeMap<>());
        }
        sizes.layers.forEach(sizes::count);
        return sizes;
    }

    /** Number of layers before pruning. */
    int layersBefore() {
        return structure.stream().layers();
    }

    /** Old numbers of the layers of which at least one block is kept. */
    List<Integer> layers() {
        return layers;
    }

    /** Old numbers of the layers whose attention is kept; these have a cache. */
    List<Integer> attentionLayers() {
        return attentionLayers;
    }

    boolean dropsLayers() {
        return layers.size() < layersBefore();
    }

    /** Whether a layer lost one of its blocks and kept the other. */
    boolean splitsLayers() {
        return split;
    }

    /** Whether the number of {@code kind} changed in any kept layer. */
    boolean changes(Kind kind) {
        return changes.get(kind).values().stream().flatMap(List::stream).anyMatch(Change::isChange);
    }

    /** Whether all kept layers with attention have equal numbers of key and value heads. */
    boolean hasEqualHeads() {
        return changes.get(Kind.KV_HEADS).values().stream().distinct().count() <= 1;
    }

    /** Whether every attention head has its own keys and values, so that one number states both. */
    boolean sharesNoKeys() {
        return changes.get(Kind.KV_HEADS).equals(changes.get(Kind.HEADS));
    }

    /** Whether the head size changed, which configurations cannot express in general. */
    boolean changesHeadSize() {
        return structure.dimensions().stream()
                .filter(dimension -> dimension.role() == Role.QK_HEAD_DIM || dimension.role() == Role.V_HEAD_DIM)
                .anyMatch(dimension -> change(dimension).isChange());
    }

    /** Titles of other roles whose sizes changed. Model families state them in keys of their own. */
    List<String> otherChanges() {
        Set<Role> others = EnumSet.of(Role.LATENT, Role.MIXER, Role.SIDE);
        return structure.dimensions().stream()
                .filter(dimension -> others.contains(dimension.role()))
                .filter(dimension -> change(dimension).isChange())
                .map(dimension -> dimension.role().title())
                .distinct()
                .toList();
    }

    /**
     * The new numbers of {@code kind} by old layer number, for layers whose old number equals that of {@code before}.
     * If units of one layer differ (experts), the largest number.
     */
    Map<Integer, Integer> after(Kind kind, IntUnaryOperator before) {
        Map<Integer, Integer> found = new TreeMap<>();
        changes.get(kind)
                .forEach((layer, all) -> all.stream()
                        .filter(change -> change.before == before.applyAsInt(layer))
                        .mapToInt(Change::after)
                        .max()
                        .ifPresent(after -> found.put(layer, after)));
        return found;
    }

    /** Whether units of one layer had equal sizes before and different ones after. */
    boolean differsInside(Kind kind) {
        return changes.get(kind).values().stream()
                .anyMatch(all -> all.stream().distinct().count()
                        > all.stream().mapToInt(Change::before).distinct().count());
    }

    /** The size of a dimension before and after pruning. */
    Change change(Dimension dimension) {
        int[] kept = plan.keep().get(dimension.name());
        int after = kept == null ? dimension.size() : Math.min(kept.length, dimension.size());
        return new Change(dimension.size(), after);
    }

    private void findLayers() {
        TreeSet<Integer> keptLayers = new TreeSet<>();
        TreeSet<Integer> attention = new TreeSet<>();
        TreeSet<Integer> cutLayers = new TreeSet<>();
        List<Block> blocks = structure.stream().blocks();
        for (int i = 0; i < blocks.size(); i++) {
            Block block = blocks.get(i);
            if (plan.removesBlock(i, block.layer())) {
                cutLayers.add(block.layer());
            } else {
                keptLayers.add(block.layer());
                if (block.kind().attends()) {
                    attention.add(block.layer());
                }
            }
        }
        layers.addAll(keptLayers);
        attentionLayers.addAll(attention);
        cutLayers.retainAll(keptLayers);
        split = !cutLayers.isEmpty();
    }

    private void count(int layer) {
        if (attentionLayers.contains(layer)) {
            List<Change> heads = at(layer, Role.HEADS);
            List<Change> groups = at(layer, Role.KV_HEADS);
            List<Change> perGroup = at(layer, Role.QUERY_HEADS);
            List<Change> all = new ArrayList<>(heads);
            IntStream.range(0, groups.size()).forEach(i -> {
                Change inside = perGroup.isEmpty() ? new Change(1, 1) : perGroup.get(Math.min(i, perGroup.size() - 1));
                Change group = groups.get(i);
                all.add(new Change(group.before * inside.before, group.after * inside.after));
            });
            groups.addAll(0, heads);
            put(Kind.HEADS, layer, all);
            put(Kind.KV_HEADS, layer, groups);
        }
        if (keepsForward(layer)) {
            put(Kind.FFN, layer, at(layer, Role.FFN));
            put(Kind.EXPERTS, layer, at(layer, Role.EXPERTS));
        }
        put(Kind.HIDDEN, layer, List.of(width()));
    }

    private void put(Kind kind, int layer, List<Change> found) {
        if (!found.isEmpty()) {
            changes.get(kind).put(layer, found);
        }
    }

    /**
     * The dimensions of a role in a layer; if there are none, those that span several layers. The channels of an expert
     * that goes count no more.
     */
    private List<Change> at(int layer, Role role) {
        List<Dimension> found = structure.dimensions().stream()
                .filter(dimension -> dimension.role() == role && !gone.contains(dimension.name()))
                .toList();
        boolean own = found.stream().anyMatch(dimension -> dimension.layer() == layer);
        return new ArrayList<>(found.stream()
                .filter(dimension -> dimension.layer() == (own ? layer : -1))
                .map(dimension -> times(change(dimension), role == Role.FFN ? channels(dimension) : 1))
                .toList());
    }

    private int channels(Dimension dimension) {
        return structure.analysis().channels(dimension.atom());
    }

    private static Change times(Change change, int factor) {
        return new Change(change.before * factor, change.after * factor);
    }

    /** Whether a layer keeps the block with its feed-forward part. A layer without such a block loses nothing. */
    private boolean keepsForward(int layer) {
        List<Block> blocks = structure.stream().blocks();
        boolean separate = false;
        for (int i = 0; i < blocks.size(); i++) {
            if (blocks.get(i).layer() == layer && blocks.get(i).kind().feedsForward()) {
                separate = true;
                if (!plan.removesBlock(i, layer)) {
                    return true;
                }
            }
        }
        return !separate;
    }

    private Change width() {
        Dim[] stream =
                structure.analysis().dims(structure.stream().blocks().get(0).base());
        Dim width = stream[stream.length - 1];
        return new Change(Math.toIntExact(width.size(0)), Math.toIntExact(width.size(0, plan.keep(structure))));
    }
}
