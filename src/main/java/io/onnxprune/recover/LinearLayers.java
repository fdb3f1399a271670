// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.recover;

import io.onnxprune.calibrate.Linear;
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
import io.onnxprune.plan.Consumers;
import io.onnxprune.plan.Consumers.Consumer;
import io.onnxprune.rewrite.AdapterInputs.Place;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/** The products of a model that can be trained, and which of them are asked for. */
final class Products {
    private final Structure structure;
    private final Consumers consumers;
    private final boolean merges;
    private final Map<String, Op> contractions = new HashMap<>();

    /**
     * A product of the lowered model, and where it is in the model itself.
     *
     * @param consumer with the weight that may be changed; empty for one that only an adapter beside it can change, such as one
     *     with a quantised matrix
     */
    record Product(Linear linear, Place place, Optional<Consumer> consumer) {}

    /**
     * Finds the products of a model.
     *
     * @param merges whether what is learned goes into weights, so that they must be ones that may be changed
     */
    Products(Structure structure, boolean merges) {
        this.structure = structure;
        this.consumers = Consumers.of(structure);
        this.merges = merges;
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
     * Those that are asked for.
     *
     * @param linears of the lowered model
     * @throws UserException if there are none, and why
     * @throws UsageException if a pattern names nothing
     */
    List<Product> wanted(List<Linear> linears, Targets targets, Log log) {
        List<Product> all = all(linears);
        targets.patterns().forEach(pattern -> requireOne(pattern, all));
        List<Product> wanted = all.stream()
                .filter(product -> isInside(product) && (isOfAttention(product) ? targets.attention() : targets.ffn())
                        || targets.name(names(product)))
                .toList();
        Set<Op> trained = new HashSet<>();
        all.forEach(product -> trained.addAll(product.place.ops()));
        Optional<String> problem = consumers.problems().entrySet().stream()
                .filter(entry -> consumers.isInside(entry.getKey()) && !trained.contains(entry.getKey()))
                .map(Map.Entry::getValue)
                .findFirst();
        if (wanted.isEmpty()) {
            // Where nothing that is a block was found, what stands outside has a reason to tell too.
            problem = problem.or(() -> consumers.problems().values().stream().findFirst());
            throw new UserException("no product of this model can be trained: "
                    + problem.orElse("it has none of those that --targets names in its residual blocks")
                    + (merges && problem.isPresent()
                            ? "; onnx-prune recover --keep-adapters trains beside what cannot be changed"
                            : ""));
        }
        problem.ifPresent(text -> log.warn("not all products are trained: " + text));
        return wanted;
    }

    private List<Product> all(List<Linear> linears) {
        List<Product> found = new ArrayList<>();
        Set<String> seen = new HashSet<>();
        for (Linear linear : linears) {
            product(linear).filter(product -> seen.add(linear.weight())).ifPresent(found::add);
        }
        return found;
    }

    private Optional<Product> product(Linear linear) {
        Consumer consumer = consumers.reading(linear.weight());
        if (consumer != null) {
            Place place = new Place(
                    consumer.weight().name(), consumers.applications(consumer), consumer.inputs(), consumer.outputs());
            return Optional.of(new Product(linear, place, Optional.of(consumer)));
        }
        Op op = contractions.get(linear.output().value());
        if (merges || op == null) {
            return Optional.empty();
        }
        Place place = new Place(
                op.node().name().isEmpty() ? op.output(0).name() : op.node().name(),
                List.of(op),
                linear.input().width(),
                linear.output().width());
        return Optional.of(new Product(linear, place, Optional.empty()));
    }

    private boolean isInside(Product product) {
        return product.place.ops().stream().anyMatch(consumers::isInside);
    }

    private boolean isOfAttention(Product product) {
        Op op = product.place.ops().get(0);
        return structure.dimensions().stream()
                .filter(dimension -> dimension.role() == Role.HEADS
                        || dimension.role() == Role.KV_HEADS
                        || dimension.role() == Role.QUERY_HEADS)
                .anyMatch(dimension -> ends(op.input(0), dimension) || ends(op.output(0), dimension));
    }

    /** Whether a dimension lies along the last axis of a value. */
    private boolean ends(Value value, Dimension dimension) {
        Dim[] dims = structure.analysis().dims(value);
        return dims != null && dims.length > 0 && dims[dims.length - 1].atoms().contains(dimension.atom());
    }

    /** What a product can be named by: its weight, its node, its layer. */
    private List<String> names(Product product) {
        List<String> names = new ArrayList<>(List.of(product.place.name()));
        for (Op op : product.place.ops()) {
            names.add(op.node().name());
            structure.stream().blocks().stream()
                    .filter(block -> block.ops().contains(op))
                    .forEach(block -> names.add("layers." + block.layer()));
        }
        return names;
    }

    /** A pattern may name what pruning took away, or what never was there. */
    private void requireOne(String pattern, List<Product> all) {
        if (all.stream().noneMatch(product -> Targets.matches(pattern, names(product)))) {
            throw new UsageException("--targets: no product of this model that can be trained is named \"" + pattern
                    + "\"; it has " + structure.stream().layers()
                    + " layers, layers.0 and on, and products are also named"
                    + " by weight and node"
                    + (all.isEmpty()
                            ? ""
                            : ", such as " + names(all.get(0)).get(0) + " and "
                                    + names(all.get(0)).get(1)));
        }
    }
}
