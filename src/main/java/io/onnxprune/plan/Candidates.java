// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.Nearest;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Structure;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/** The dimensions, layers and blocks that a budget may prune. They are neither pinned nor protected. */
final class Candidates {
    private final Structure structure;
    private final Budget budget;
    private final List<List<Dimension>> groups = new ArrayList<>();
    private final ParameterCount count;
    private final BlockRemoval removal;
    private final Map<String, String> blocked = new LinkedHashMap<>();
    private Optional<String> outOfReach = Optional.empty();

    /**
     * Selects what {@code budget} may prune.
     *
     * @throws UserException if a requested role does not exist in the model, or is pinned everywhere
     * @throws UsageException if a protection pattern matches nothing
     */
    Candidates(Structure structure, Budget budget, ParameterCount count, Log log) {
        this.structure = structure;
        this.budget = budget;
        this.count = count;
        this.removal = BlockRemoval.of(structure);
        requireStream();
        checkPatterns();
        groupsOf(budget.layout()).forEach(group -> {
            String reason = group.stream()
                    .map(this::blockedBy)
                    .filter(found -> found != null)
                    .findFirst()
                    .orElse(null);
            if (reason == null) {
                groups.add(group);
            } else {
                group.forEach(dimension -> blocked.put(dimension.name(), reason));
            }
        });
        Set<String> words = new LinkedHashSet<>();
        budget.prune().roles().forEach(role -> words.add(PruneSet.word(role)));
        List<String> problems = words.stream()
                .map(word -> problem(word, log))
                .flatMap(Optional::stream)
                .toList();
        boolean nothing = problems.size() == words.size()
                && !budget.prune().layers()
                && !budget.prune().blocks();
        if (nothing) {
            throw new UserException(problems.get(0));
        }
        problems.forEach(log::warn);
        checkDepth(log);
    }

    /**
     * Warns about blocks that cannot be removed, or, where layers stay, about parameters that cannot be pruned. Layers are
     * not pruned without a block that can be removed.
     */
    private void checkDepth(Log log) {
        if (!budget.prune().layers() && !budget.prune().blocks()) {
            outOfReach = count.outOfReach();
            outOfReach.ifPresent(share -> log.warn(share + "; the others are pruned by more to make up for them"));
            return;
        }
        List<Block> blocks = structure.stream().blocks();
        blocks.stream().filter(block -> block.pin() != null).findFirst().ifPresent(block -> {
            throw new UserException("layers cannot be pruned in this model: they are " + block.pin()
                    + "; export one model without branches, or prune something else");
        });
        List<String> reasons = IntStream.range(0, blocks.size())
                .filter(index -> removal.obstacle(index) != null)
                .mapToObj(index -> "blocks." + index + " of layers."
                        + blocks.get(index).layer() + " is " + removal.obstacle(index))
                .toList();
        if (reasons.size() == blocks.size()) {
            throw new UserException(
                    "no layer of this model can be pruned: " + reasons.get(0) + "; prune something else");
        }
        if (!reasons.isEmpty()) {
            String others = reasons.size() == 1 ? "" : ", and " + (reasons.size() - 1) + " more blocks";
            log.warn("not every layer can be pruned: " + reasons.get(0) + others);
            reasons.forEach(reason -> blocked.put(reason, reason));
        }
    }

    /** Without the residual stream, nothing tells the width of the model from the inner width of a block. */
    private void requireStream() {
        if (structure.stream().blocks().isEmpty()) {
            throw new UserException(structure.analysis().program().model().source()
                    + " has no residual stream, so its layers are not known and nothing can be pruned: "
                    + structure.stream().missing() + "; export a decoder with residual connections");
        }
    }

    /** The groups of dimensions that keep equal counts. */
    List<List<Dimension>> groups() {
        return groups;
    }

    /** The indices of layers that may be pruned. */
    List<Integer> layers() {
        List<int[]> layers = PrunableBlocks.layers(structure);
        return IntStream.range(0, structure.stream().layers())
                .filter(layer -> !isSkipped(layer) && mayGo(layers.get(layer)))
                .boxed()
                .toList();
    }

    /** The positions in {@link PrunableBlocks#blocks} that may be pruned. */
    List<Integer> blocks() {
        List<int[]> copies = PrunableBlocks.blocks(structure);
        List<Block> blocks = structure.stream().blocks();
        return IntStream.range(0, copies.size())
                .filter(position ->
                        !isSkipped(blocks.get(copies.get(position)[0]).layer()))
                .filter(position -> mayGo(copies.get(position)))
                .boxed()
                .toList();
    }

    /** The reasons why more cannot be pruned, for an error message; empty if nothing is held back. */
    String limits() {
        List<String> reasons = new ArrayList<>(outOfReach.stream().toList());
        groups.stream()
                .flatMap(List::stream)
                .filter(dimension -> dimension.units().least() > 1)
                .forEach(dimension -> reasons.add(dimension.name() + " keeps at least "
                        + dimension.units().least() + ": "
                        + dimension.units().because()));
        blocked.values().stream().distinct().forEach(reasons::add);
        if (reasons.isEmpty()) {
            return "";
        }
        String more = reasons.size() > 3 ? " and so on" : "";
        String uniform = !blocked.isEmpty() && budget.layout() == Budget.Layout.UNIFORM
                ? "a uniform layout prunes all layers or none, and "
                : "";
        return ", because " + uniform + String.join(", ", reasons.subList(0, Math.min(3, reasons.size()))) + more;
    }

    /**
     * The sets of blocks at {@code order} that may be removed together after {@code before}, in this order. The last
     * one with a cache is left out if something that stays needs the length of a cache.
     */
    List<Integer> withLengths(List<Integer> order, List<int[]> sets, BitSet before) {
        BitSet removed = (BitSet) before.clone();
        List<Integer> allowed = new ArrayList<>();
        for (int position : order) {
            BitSet next = (BitSet) removed.clone();
            next.or(ParameterCount.bits(sets.get(position)));
            if (!removal.losesLengths(next)) {
                removed = next;
                allowed.add(position);
            }
        }
        return allowed;
    }

    private List<List<Dimension>> groupsOf(Budget.Layout layout) {
        Map<String, List<Dimension>> found = new LinkedHashMap<>();
        for (Dimension dimension : structure.dimensions()) {
            if (budget.prune().roles().contains(dimension.role())) {
                boolean tied = layout == Budget.Layout.UNIFORM && dimension.layer() >= 0;
                String key = tied ? dimension.role().key() + '/' + dimension.size() : dimension.name();
                found.computeIfAbsent(key, unused -> new ArrayList<>()).add(dimension);
            }
        }
        return List.copyOf(found.values());
    }

    /** The reason why a dimension may not be pruned; null if it may. */
    private String blockedBy(Dimension dimension) {
        if (!dimension.isPrunable()) {
            return dimension.name() + " is pinned (" + dimension.pin() + ")";
        }
        if (isProtected(dimension.name()) || isProtected("layers." + dimension.layer())) {
            return dimension.name() + " is protected";
        }
        String refused = budget.refused().get(dimension.name());
        if (refused != null) {
            return dimension.name() + " is " + refused;
        }
        return isSkipped(dimension.layer()) ? dimension.name() + " is in a skipped layer" : null;
    }

    private boolean isSkipped(int layer) {
        int layers = structure.stream().layers();
        return layer >= 0
                && (layer < budget.skipFirst().in(layers)
                        || layer >= layers - budget.skipLast().in(layers));
    }

    private boolean mayGo(int... blocks) {
        return Arrays.stream(blocks).allMatch(index -> removal.obstacle(index) == null) && !holdsProtected(blocks);
    }

    /** Whether the blocks, their layer, or a dimension that would be pruned with them is protected. */
    private boolean holdsProtected(int... blocks) {
        if (budget.protect().isEmpty()) {
            return false;
        }
        BitSet removed = ParameterCount.bits(blocks);
        return removed.stream()
                        .anyMatch(index -> isProtected("blocks." + index)
                                || isProtected("layers."
                                        + structure.stream().blocks().get(index).layer()))
                || count.removedDimensions(removed).stream().anyMatch(this::isProtected);
    }

    private boolean isProtected(String name) {
        return budget.protect().stream().anyMatch(pattern -> NamePattern.matches(pattern, name));
    }

    private void checkPatterns() {
        List<String> names = new ArrayList<>();
        structure.dimensions().forEach(dimension -> names.add(dimension.name()));
        IntStream.range(0, structure.stream().layers()).forEach(layer -> names.add("layers." + layer));
        IntStream.range(0, structure.stream().blocks().size()).forEach(block -> names.add("blocks." + block));
        for (String pattern : budget.protect()) {
            if (names.stream().noneMatch(name -> NamePattern.matches(pattern, name))) {
                throw new UsageException("the pattern \"" + pattern + "\" protects nothing in this model"
                        + Nearest.suggestion(pattern, names));
            }
        }
    }

    /** The reason why nothing of a kind can be pruned. If only a part is held back, logs a warning instead. */
    private Optional<String> problem(String word, Log log) {
        List<Dimension> all = structure.dimensions().stream()
                .filter(dimension -> PruneSet.word(dimension.role()).equals(word))
                .toList();
        if (all.isEmpty()) {
            Set<String> present = structure.dimensions().stream()
                    .filter(Dimension::isPrunable)
                    .map(dimension -> PruneSet.word(dimension.role()))
                    .collect(Collectors.toCollection(LinkedHashSet::new));
            return Optional.of("there are no " + word + " to prune in this model; it has "
                    + (present.isEmpty() ? "nothing that can be pruned" : String.join(", ", present)));
        }
        List<Dimension> pinned =
                all.stream().filter(dimension -> !dimension.isPrunable()).toList();
        if (pinned.size() == all.size()) {
            return Optional.of("no " + word + " can be pruned in this model: "
                    + pinned.get(0).name() + " is pinned, " + pinned.get(0).pin() + "; prune something else");
        }
        if (!pinned.isEmpty()) {
            log.warn(pinned.size() + " of " + all.size() + " dimensions of "
                    + pinned.get(0).role().title() + " are not pruned: "
                    + pinned.get(0).name() + ", " + pinned.get(0).pin());
        }
        boolean uniform = budget.layout() == Budget.Layout.UNIFORM;
        all.stream()
                .filter(dimension -> uniform && dimension.isPrunable() && blockedBy(dimension) == null)
                .filter(dimension -> blocked.containsKey(dimension.name()))
                .findFirst()
                .ifPresent(dimension ->
                        log.warn(word + " are not pruned, because a uniform layout prunes all layers or none: "
                                + blocked.get(dimension.name())));
        return Optional.empty();
    }
}
