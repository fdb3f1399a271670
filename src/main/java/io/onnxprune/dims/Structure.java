// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.dims.DimensionAnalysis.Member;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Comparator;
import java.util.HashMap;
import java.util.HashSet;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.stream.Collectors;

/**
 * The structure that dimension inference found: the role and the layer of every dimension of weights. Roles follow
 * from where a dimension occurs. Heads index the distributions of attention. The hidden dimension is that of the
 * residual additions. FFN channels are the outputs of one linear layer and the inputs of another.
 */
public final class Structure {
    /** Maximal number of operators (transposes, look-ups) between a weight and its block. */
    private static final int MOVES = 4;

    private final DimensionAnalysis analysis;
    private final ResidualStream stream;
    private final Map<Dim.Atom, List<Member>> members;
    private final TokenFlow tokens;
    private final Map<Op, Set<Integer>> blocksByOp = new HashMap<>();
    private final Map<Dim.Atom, Role> roles = new HashMap<>();
    private final Choices choices;
    private final List<Dimension> dimensions = new ArrayList<>();

    private Structure(DimensionAnalysis analysis) {
        this.analysis = analysis;
        this.stream = ResidualStream.of(analysis);
        this.choices = new Choices(analysis);
        this.members = analysis.members();
        this.tokens = TokenFlow.of(analysis);
        for (int i = 0; i < stream.blocks().size(); i++) {
            for (Op op : stream.blocks().get(i).ops()) {
                blocksByOp.computeIfAbsent(op, key -> new HashSet<>()).add(i);
            }
        }
        assignRoles();
        choices.pinOthers(atom -> role(atom) == Role.EXPERTS);
        pinInterface();
        pinUnknownTypes();
        nameDimensions();
    }

    public static Structure of(DimensionAnalysis analysis) {
        return new Structure(analysis);
    }

    public DimensionAnalysis analysis() {
        return analysis;
    }

    public ResidualStream stream() {
        return stream;
    }

    /** Where token ids go. */
    public TokenFlow tokens() {
        return tokens;
    }

    /** The dimensions of weights, by role and layer, without those of extent one. */
    public List<Dimension> dimensions() {
        return dimensions;
    }

    /** What the operators that serve one unit each become without the units that are not kept. */
    public Absence absence(Dim.Keep keep) {
        return choices.absence(keep);
    }

    /** The role of an atom; {@link Role#OTHER} when nothing is known. */
    public Role role(Dim.Atom atom) {
        return roles.getOrDefault(atom, Role.OTHER);
    }

    /**
     * A dimension in terms of named ones, such as {@code heads.0 × v_head_dim.0}. A part without a name is given by
     * its size.
     */
    public String describe(Dim dim) {
        Dim resolved = dim.resolve();
        if (resolved instanceof Dim.Product product) {
            return product.factors().isEmpty()
                    ? "1"
                    : product.factors().stream().map(this::describe).collect(Collectors.joining(" × "));
        }
        if (resolved instanceof Dim.Sum sum) {
            return sum.parts().stream().map(this::describe).collect(Collectors.joining(" ⊕ ", "(", ")"));
        }
        return dimensions.stream()
                .filter(dimension -> dimension.atom() == resolved)
                .map(Dimension::name)
                .findFirst()
                .orElse(resolved.isDynamic() ? "dynamic" : Long.toString(resolved.size(0)));
    }

    private void assignRoles() {
        // A softmax over the tokens is no choice among experts.
        assignTables();
        choices.atoms().forEach(atom -> roles.putIfAbsent(atom, Role.EXPERTS));
        for (AnalysisFacts.Distribution distribution : analysis.facts().distributions()) {
            if (!distribution.overPositions()) {
                continue;
            }
            List<Dim.Atom> heads = new ArrayList<>();
            distribution
                    .batch()
                    .forEach(dim -> dim.atoms().stream()
                            .filter(atom -> !atom.isDynamic() && atom.size(0) > 1)
                            .forEach(heads::add));
            for (int i = 0; i < heads.size(); i++) {
                boolean isSingle = heads.size() == 1;
                roles.putIfAbsent(heads.get(i), isSingle ? Role.HEADS : i == 0 ? Role.KV_HEADS : Role.QUERY_HEADS);
            }
        }
        stream.width().forEach(atom -> roles.put(atom, Role.HIDDEN));
        assignHeadSizes();
        assignInnerWidths();
    }

    /**
     * Assigns the inner widths of blocks: what one linear layer produces and another one consumes. Without a residual
     * stream, nothing tells them from its width.
     */
    private void assignInnerWidths() {
        Set<Op> beforeAttention = new HashSet<>();
        stream.blocks().forEach(block -> beforeAttention.addAll(stream.beforeAttention(block)));
        Map<Dim.Atom, Set<Op>> contracted = new HashMap<>();
        for (AnalysisFacts.Contraction contraction : analysis.facts().contractions()) {
            if (contraction.withConstant()) {
                contraction
                        .dim()
                        .atoms()
                        .forEach(atom -> contracted
                                .computeIfAbsent(atom, key -> new LinkedHashSet<>())
                                .add(contraction.op()));
            }
        }
        members.forEach((atom, places) -> {
            long matrices =
                    places.stream().filter(place -> place.tensor().rank() >= 2).count();
            boolean spansAxis = atom.pin() == null
                    || places.stream().anyMatch(place -> place.dim().resolve() == atom);
            if (stream.isWidth(atom)) {
                roles.putIfAbsent(atom, Role.SIDE);
            }
            boolean inner = !stream.blocks().isEmpty() && !atom.isDynamic();
            Set<Op> consumers = contracted.getOrDefault(atom, Set.of());
            if (!consumers.isEmpty() && matrices >= 2 && spansAxis && inner) {
                roles.putIfAbsent(
                        atom,
                        isOfInput(atom)
                                ? Role.SIDE
                                : beforeAttention.containsAll(consumers) ? Role.LATENT : innerWidth(consumers));
            }
        });
    }

    /** The role of an inner width that {@code consumers} sum over, by the blocks that they are in. */
    private Role innerWidth(Set<Op> consumers) {
        List<BlockKind> kinds = consumers.stream()
                .flatMap(op -> blocksOf(op, MOVES).stream())
                .map(block -> stream.blocks().get(block).kind())
                .toList();
        if (kinds.isEmpty() || kinds.stream().anyMatch(BlockKind::feedsForward)) {
            return Role.FFN;
        }
        if (kinds.stream().allMatch(BlockKind::attends)) {
            return Role.LATENT;
        }
        return kinds.stream().allMatch(kind -> kind == BlockKind.MIXER) ? Role.MIXER : Role.SIDE;
    }

    /** Whether an input of the model that is no state has this width, such as the states of an encoder. */
    private boolean isOfInput(Dim.Atom atom) {
        return analysis.program().inputs().stream()
                .filter(input -> !analysis.isState(input))
                .map(analysis::dims)
                .filter(Objects::nonNull)
                .flatMap(Arrays::stream)
                .anyMatch(dim -> dim.atoms().contains(atom));
    }

    /**
     * Indices of the blocks that have an operator, or, for one that only prepares a weight, the operators that use it.
     */
    private Set<Integer> blocksOf(Op op, int depth) {
        Set<Integer> found = blocksByOp.get(op);
        if (found != null) {
            return found;
        }
        found = new HashSet<>();
        if (depth > 0 && op.output(0) != null) {
            for (Use use : op.output(0).uses()) {
                found.addAll(blocksOf(use.op(), depth - 1));
            }
        }
        return found;
    }

    private void assignHeadSizes() {
        Set<Dim.Atom> scores = new HashSet<>();
        analysis.facts().contractions().stream()
                .filter(contraction -> !contraction.withConstant())
                .forEach(contraction -> scores.addAll(contraction.dim().atoms()));
        Set<Dim.Atom> perHead = new LinkedHashSet<>();
        members.values()
                .forEach(places ->
                        places.forEach(place -> collectInsideHeads(place.dim().resolve(), perHead)));
        for (Dim.Atom atom : perHead) {
            roles.putIfAbsent(atom, scores.contains(atom) ? Role.QK_HEAD_DIM : Role.V_HEAD_DIM);
        }
        scores.stream().filter(atom -> !atom.isDynamic()).forEach(atom -> roles.putIfAbsent(atom, Role.QK_HEAD_DIM));
    }

    /** Collects factors beside a head count in one axis: they are components of a head. */
    private void collectInsideHeads(Dim dim, Set<Dim.Atom> found) {
        if (dim instanceof Dim.Sum sum) {
            sum.parts().forEach(part -> collectInsideHeads(part.resolve(), found));
        } else if (dim instanceof Dim.Product product) {
            boolean heads = product.atoms().stream().anyMatch(this::isHeads);
            if (heads) {
                found.addAll(product.factors().get(product.factors().size() - 1).atoms());
                found.removeIf(this::isHeads);
            } else {
                product.factors().forEach(factor -> collectInsideHeads(factor.resolve(), found));
            }
        }
    }

    private boolean isHeads(Dim.Atom atom) {
        Role role = roles.get(atom);
        return role == Role.HEADS || role == Role.KV_HEADS || role == Role.QUERY_HEADS;
    }

    /**
     * Assigns the vocabulary: the axes of tables that token ids index, or else the looked-up axis of the largest table
     * beside the residual stream, and the last axis of the logits.
     */
    private void assignTables() {
        Set<Dim.Atom> tables = new LinkedHashSet<>(tokens.tables());
        tables.retainAll(members.keySet());
        if (tables.isEmpty()) {
            members.keySet().stream()
                    .filter(atom -> IndexRules.isLookedUp(atom)
                            && members.get(atom).stream().anyMatch(this::isBesideWidth))
                    .max(Comparator.comparingLong(atom -> atom.size(0)))
                    .ifPresent(tables::add);
        }
        tables.forEach(atom -> roles.putIfAbsent(atom, Role.VOCABULARY));
        for (Value output : analysis.program().outputs()) {
            Dim[] dims = analysis.dims(output);
            if (dims != null && dims.length > 0 && dims.length <= 3) {
                for (Dim.Atom atom : dims[dims.length - 1].atoms()) {
                    if (tables.stream().anyMatch(table -> table.size(0) == atom.size(0))) {
                        roles.putIfAbsent(atom, Role.VOCABULARY);
                    }
                }
            }
        }
    }

    private boolean isBesideWidth(Member place) {
        Dim[] dims = analysis.operand(place.use().op(), place.use().input());
        return dims.length == 2 && stream.width().containsAll(dims[1 - place.axis()].atoms());
    }

    /** Pins axes of graph inputs and outputs, on which callers rely, except those of the attention cache. */
    private void pinInterface() {
        for (Value output : analysis.program().outputs()) {
            pinInterface(output, "output");
        }
        for (Value input : analysis.program().inputs()) {
            pinInterface(input, "input");
        }
    }

    private void pinInterface(Value value, String what) {
        Dim[] dims = analysis.dims(value);
        if (dims == null) {
            return;
        }
        for (Dim dim : dims) {
            for (Dim.Atom atom : dim.atoms()) {
                Role role = role(atom);
                if (!isHeads(atom) && role != Role.QK_HEAD_DIM && role != Role.V_HEAD_DIM) {
                    atom.pinInterface(what + " \"" + value.name() + '"');
                }
            }
        }
    }

    private void pinUnknownTypes() {
        members.forEach((atom, places) -> places.forEach(place -> {
            if (place.tensor().bytes() == null) {
                atom.pin("elements of a type that is not interpreted at node "
                        + place.use().op().node().label());
            }
        }));
    }

    private void nameDimensions() {
        List<Dimension> found = new ArrayList<>();
        members.forEach((atom, places) -> {
            List<Member> weights =
                    places.stream().filter(place -> isWeight(place)).toList();
            if (!weights.isEmpty() && atom.size(0) > 1 && !atom.isDynamic()) {
                found.add(new Dimension(
                        "",
                        role(atom),
                        layer(atom, weights),
                        atom,
                        (int) atom.size(0),
                        weights,
                        choices.units(atom),
                        atom.pin()));
            }
        });
        found.sort(Comparator.comparing(Dimension::role).thenComparing(Dimension::layer));
        Map<String, Integer> counts = new LinkedHashMap<>();
        found.forEach(dimension -> counts.merge(baseName(dimension), 1, Integer::sum));
        Map<String, Integer> used = new HashMap<>();
        for (Dimension d : found) {
            String base = baseName(d);
            // The separator differs from that of a layer: ffn-1 is the first of several, ffn.1 is that of layer 1.
            String name = counts.get(base) == 1 ? base : base + "-" + used.merge(base, 1, Integer::sum);
            dimensions.add(
                    new Dimension(name, d.role(), d.layer(), d.atom(), d.size(), d.members(), d.units(), d.pin()));
        }
    }

    private static boolean isWeight(Member member) {
        boolean quantised =
                member.tensor().dtype().bits() <= 8 && member.tensor().rank() >= 1;
        return member.tensor().dtype().isFloat() || quantised;
    }

    private static String baseName(Dimension dimension) {
        return dimension.role().key() + (dimension.layer() < 0 ? "" : "." + dimension.layer());
    }

    /** The layer of the blocks that use the dimension; -1 when there are several or none. */
    private int layer(Dim.Atom atom, List<Member> places) {
        boolean table = IndexRules.isLookedUp(atom) && places.stream().anyMatch(this::isBesideWidth);
        if (stream.width().contains(atom) || role(atom) == Role.VOCABULARY || table) {
            return -1;
        }
        Set<Integer> found = new HashSet<>();
        places.forEach(place -> blocksOf(place.use().op(), MOVES)
                .forEach(block -> found.add(stream.blocks().get(block).layer())));
        return found.size() == 1 ? found.iterator().next() : -1;
    }
}
