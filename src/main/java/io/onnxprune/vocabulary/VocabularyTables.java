// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.vocabulary;

import io.onnxprune.diag.UserException;
import io.onnxprune.dims.AnalysisFacts;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.plan.ParameterCount;
import io.onnxprune.plan.Plan;
import io.onnxprune.rewrite.Slicer;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Objects;
import java.util.Optional;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/**
 * The dimensions of a model that have one index for each token: those of tables that token ids look up, and those of the
 * logits and what they are computed with. They lose the same tokens.
 */
public final class VocabularyTables {
    private final Structure structure;
    private final List<Dimension> dimensions;
    private final Set<Dim.Atom> atoms = new LinkedHashSet<>();

    private VocabularyTables(Structure structure) {
        this.structure = structure;
        this.dimensions = structure.dimensions().stream()
                .filter(dimension -> dimension.role() == Role.VOCABULARY)
                .toList();
        atoms.addAll(structure.tokens().tables());
        dimensions.forEach(dimension -> atoms.add(dimension.atom()));
    }

    public static VocabularyTables of(Structure structure) {
        return new VocabularyTables(structure);
    }

    /** Why a dimension cannot be pruned; null when it can, as those of the tokens when tokens can go. */
    public static @Nullable String pin(Structure structure, Dimension dimension) {
        return dimension.role() == Role.VOCABULARY ? of(structure).obstacle().orElse(null) : dimension.pin();
    }

    /** The dimensions with weights. */
    public List<Dimension> dimensions() {
        return dimensions;
    }

    /** The number of token ids: rows of the largest table. */
    public int size() {
        return atoms.stream().mapToInt(atom -> (int) atom.size(0)).max().orElse(0);
    }

    /** Why tokens cannot go, with the node; empty where they can. */
    public Optional<String> obstacle() {
        if (structure.tokens().tables().isEmpty()) {
            return structure
                    .tokens()
                    .obstacle()
                    .or(
                            () -> Optional.of(
                                    "the model looks no token ids up in a table of its own, so tokens cannot go from this file alone"));
        }
        return structure
                .tokens()
                .obstacle()
                .or(() -> atoms.stream()
                        .map(Dim.Atom::otherPin)
                        .filter(Objects::nonNull)
                        .findFirst())
                .or(this::mixed)
                .or(this::otherLogits);
    }

    /** An operator that computes one number from those of all tokens. */
    private Optional<String> mixed() {
        AnalysisFacts facts = structure.analysis().facts();
        Optional<String> mean = facts.means().stream()
                .filter(found -> {
                    Dim[] dims = structure.analysis().operand(found.op(), found.input());
                    return dims != null && found.axes().stream().anyMatch(axis -> holds(dims[axis]));
                })
                .findFirst()
                .map(found -> "a mean or range over all tokens, at node "
                        + found.op().node().label());
        return mean.or(() -> facts.contractions().stream()
                .filter(found -> holds(found.dim()))
                .findFirst()
                .map(found ->
                        "a sum over all tokens, at node " + found.op().node().label()));
    }

    private boolean holds(Dim dim) {
        return dim.atoms().stream().anyMatch(atoms::contains);
    }

    /** Logits whose columns are not those of the tokens. */
    private Optional<String> otherLogits() {
        Optional<Value> logits = structure.analysis().logits();
        Dim[] dims = logits.map(structure.analysis()::dims).orElse(null);
        if (dims == null || dims.length == 0) {
            return Optional.empty();
        }
        Dim last = dims[dims.length - 1];
        Set<Dim.Atom> columns = last.atoms();
        boolean single = columns.size() == 1 && columns.iterator().next().size(0) == last.size(0);
        if (single && atoms.containsAll(columns)) {
            return Optional.empty();
        }
        return Optional.of(columns.stream()
                .map(Dim.Atom::otherPin)
                .filter(Objects::nonNull)
                .findFirst()
                .orElse("output \"%s\" has %d columns that cannot be told to be those of the %d tokens"
                        .formatted(logits.orElseThrow().name(), last.size(0), size())));
    }

    /**
     * Checks that tokens can go.
     *
     * @throws UserException with the node if they cannot
     */
    public void require() {
        obstacle().ifPresent(reason -> {
            throw new UserException("the vocabulary cannot be pruned: " + reason);
        });
    }

    /** The numbers of token ids in the tables before, each with that after. */
    public Map<Integer, Integer> sizes(KeptTokens kept) {
        Map<Integer, Integer> sizes = new LinkedHashMap<>();
        for (Dim.Atom atom : atoms) {
            int size = (int) atom.size(0);
            sizes.put(size, kept.below(size).length);
        }
        return sizes;
    }

    /** The size of the model with the kept tokens. */
    public ParameterCount.Size sizeWith(KeptTokens kept) {
        Map<String, int[]> keep = new LinkedHashMap<>();
        dimensions.forEach(dimension -> keep.put(dimension.name(), kept.below(dimension.size())));
        return ParameterCount.of(structure).under(new Plan("", keep, null, null));
    }

    /**
     * The model with the kept tokens only, lazily sliced.
     *
     * @throws UserException if a size is computed in a way that cannot be patched
     */
    public Model reduced(KeptTokens kept) {
        return Slicer.slice(structure, keep(kept), Map.of());
    }

    /**
     * Other contents of an initializer, for the model with the kept tokens.
     *
     * @throws UserException if the model has no such initializer, or its extents differ
     */
    public Tensor reduced(String initializer, Tensor contents, KeptTokens kept) {
        Value value = structure.analysis().program().initializers().get(initializer);
        if (value == null) {
            throw new UserException("the model has no optional input \"" + initializer + '"');
        }
        return Slicer.sliceLike(structure, keep(kept), value, contents);
    }

    private Dim.Keep keep(KeptTokens kept) {
        Map<Dim.Atom, int[]> keep = new LinkedHashMap<>();
        for (Dim.Atom atom : atoms) {
            int size = (int) atom.size(0);
            int[] stay = kept.below(size);
            if (stay.length < size) {
                keep.put(atom, stay);
            }
        }
        return keep::get;
    }
}
