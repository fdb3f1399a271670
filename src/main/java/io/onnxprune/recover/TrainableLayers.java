// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.AnalysisFacts.Contraction;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.plan.LinearLayer;
import io.onnxprune.plan.LinearLayers;
import io.onnxprune.rewrite.AdapterInputs.Place;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** The linear layers of a model that can be trained, and the selection of those to train. */
final class TrainableLayers {
    private final Structure structure;
    private final LinearLayers consumers;
    private final boolean mergesAdapters;
    private final Map<String, Op> contractions = new HashMap<>();

    /**
     * A linear layer of the lowered model and of the original model.
     *
     * @param place its operators in the original model
     * @param consumer the layer with its weight, if the weight may be changed; empty when only an adapter beside it
     *     can be trained, such as for a quantised weight
     */
    record TrainableLayer(LoweredLinear linear, Place place, Optional<LinearLayer> consumer) {}

    /**
     * Finds the linear layers of a model.
     *
     * @param mergesAdapters whether adapters will be merged into the weights, so that the weights must be changeable
     */
    TrainableLayers(Structure structure, boolean mergesAdapters) {
        this.structure = structure;
        this.consumers = LinearLayers.of(structure);
        this.mergesAdapters = mergesAdapters;
        for (Contraction contraction : structure.analysis().facts().contractions()) {
            Op op = contraction.op();
            boolean real = structure.analysis().trace().dtype(op.output(0)).isFloat()
                    && structure.analysis().trace().dtype(op.input(0)).isFloat();
            if (contraction.withConstant() && real && op.branch().isEmpty()) {
                contractions.put(op.output(0).name(), op);
            }
        }
    }

    /**
     * The linear layers that {@code targets} selects.
     *
     * @param linears linear layers of the lowered model
     * @throws UserException when there is none; the message gives the reason
     * @throws UsageException when a pattern matches no layer
     */
    List<TrainableLayer> select(List<LoweredLinear> linears, Targets targets, Log log) {
        List<TrainableLayer> all = all(linears);
        targets.patterns().forEach(pattern -> requireOne(pattern, all));
        List<TrainableLayer> selected = all.stream()
                .filter(layer -> isInside(layer) && (isOfAttention(layer) ? targets.attention() : targets.ffn())
                        || targets.selects(names(layer)))
                .toList();
        Set<Op> trained = new HashSet<>();
        all.forEach(layer -> trained.addAll(layer.place.ops()));
        Optional<String> problem = consumers.problems().entrySet().stream()
                .filter(entry -> consumers.isInside(entry.getKey()) && !trained.contains(entry.getKey()))
                .map(Map.Entry::getValue)
                .findFirst();
        if (selected.isEmpty()) {
            // Without residual blocks, a problem outside them is reported.
            problem = problem.or(() -> consumers.problems().values().stream().findFirst());
            throw new UserException("no linear layer of this model can be trained: "
                    + problem.orElse("its residual blocks have none that --targets selects")
                    + (mergesAdapters && problem.isPresent()
                            ? "; onnx-prune recover --keep-adapters trains beside weights that cannot be changed"
                            : ""));
        }
        problem.ifPresent(text -> log.warn("not all linear layers are trained: " + text));
        return selected;
    }

    private List<TrainableLayer> all(List<LoweredLinear> linears) {
        List<TrainableLayer> found = new ArrayList<>();
        Set<String> seen = new HashSet<>();
        for (LoweredLinear linear : linears) {
            trainable(linear).filter(layer -> seen.add(linear.weight())).ifPresent(found::add);
        }
        return found;
    }

    private Optional<TrainableLayer> trainable(LoweredLinear linear) {
        LinearLayer consumer = consumers.ofWeight(linear.weight());
        if (consumer != null) {
            Place place = new Place(
                    consumer.weight().name(), consumers.applications(consumer), consumer.inputs(), consumer.outputs());
            return Optional.of(new TrainableLayer(linear, place, Optional.of(consumer)));
        }
        Op op = contractions.get(linear.output().value());
        if (mergesAdapters || op == null) {
            return Optional.empty();
        }
        Place place = new Place(
                op.node().name().isEmpty() ? op.output(0).name() : op.node().name(),
                List.of(op),
                linear.input().width(),
                linear.output().width());
        return Optional.of(new TrainableLayer(linear, place, Optional.empty()));
    }

    private boolean isInside(TrainableLayer layer) {
        return layer.place.ops().stream().anyMatch(consumers::isInside);
    }

    private boolean isOfAttention(TrainableLayer layer) {
        Op op = layer.place.ops().get(0);
        return structure.dimensions().stream()
                .filter(dimension -> dimension.role() == Role.HEADS
                        || dimension.role() == Role.KV_HEADS
                        || dimension.role() == Role.QUERY_HEADS)
                .anyMatch(dimension -> isLastAxis(op.input(0), dimension) || isLastAxis(op.output(0), dimension));
    }

    /** Whether a dimension is part of the last axis of a value. */
    private boolean isLastAxis(Value value, Dimension dimension) {
        Dim[] dims = structure.analysis().dims(value);
        return dims != null && dims.length > 0 && dims[dims.length - 1].atoms().contains(dimension.atom());
    }

    /** The names of a linear layer for patterns: its weight, its nodes and its transformer layer. */
    private List<String> names(TrainableLayer layer) {
        List<String> names = new ArrayList<>(List.of(layer.place.name()));
        for (Op op : layer.place.ops()) {
            names.add(op.node().name());
            structure.stream().blocks().stream()
                    .filter(block -> block.ops().contains(op))
                    .forEach(block -> names.add("layers." + block.layer()));
        }
        return names;
    }

    /**
     * Checks that a pattern matches a layer. It may name a pruned or a non-existent one.
     *
     * @throws UsageException when it matches none
     */
    private void requireOne(String pattern, List<TrainableLayer> all) {
        if (all.stream().noneMatch(layer -> Targets.matches(pattern, names(layer)))) {
            throw new UsageException("--targets: no trainable linear layer of this model is named \"" + pattern
                    + "\"; it has " + structure.stream().layers()
                    + " layers from layers.0 on, and linear layers are also named"
                    + " by weight and node"
                    + (all.isEmpty()
                            ? ""
                            : ", such as " + names(all.get(0)).get(0) + " and "
                                    + names(all.get(0)).get(1)));
        }
    }
}
