// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.dims;

import io.onnxprune.ir.Program;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.ir.ValueInfo;
import io.onnxprune.runtime.ModelInterface;
import io.onnxprune.runtime.State;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;

/**
 * Dimension inference: gives every axis of every tensor a {@link Dim} and unifies them by the operators' rules
 * (docs/architecture.md). No decision depends on the name of an operator instance or value.
 */
public final class DimensionAnalysis {
    private final Program program;
    private final ModelInterface graph;
    private final Trace trace;
    private final Unifier unifier = new Unifier();
    private final AnalysisFacts facts = new AnalysisFacts();
    private final Elements elements;
    private final Map<Value, Dim[]> values = new HashMap<>();
    private final Map<Use, Dim[]> constantUses = new LinkedHashMap<>();
    private final Map<Value, Dim> targets = new HashMap<>();
    private final Map<Value, Dim[]> components = new HashMap<>();
    private final Set<Use> untied;
    private final Map<Use, Dim[]> sideUses = new LinkedHashMap<>();

    private DimensionAnalysis(Program program, ModelInterface graph, Trace trace, Set<Use> untied) {
        this.program = program;
        this.graph = graph;
        this.trace = trace;
        this.untied = untied;
        this.elements = new Elements(trace, this::dims);
    }

    /**
     * Analyses a traced program in two passes. The first finds the residual stream. The second does not tie values
     * beside the stream to the blocks that consume them.
     */
    public static DimensionAnalysis of(Program program, Trace trace) {
        ModelInterface graph = ModelInterface.of(program.model().graph());
        DimensionAnalysis tied = new DimensionAnalysis(program, graph, trace, Set.of()).run();
        Set<Use> side = SideValues.uses(tied);
        return side.isEmpty() ? tied : new DimensionAnalysis(program, graph, trace, side).run();
    }

    private DimensionAnalysis run() {
        Map<String, Set<Integer>> variable = graph.variableAxes();
        program.inputs().forEach(input -> declareInput(input, variable.getOrDefault(input.name(), Set.of())));
        for (Op op : program.ops()) {
            if (!op.outputs().stream().allMatch(value -> value != null && value.constant() != null)) {
                OperatorRules.apply(new RuleContext(this, op));
                elements.evaluate(op);
            }
        }
        program.ops().forEach(this::pinSizesUsedAsNumbers);
        program.outputs().forEach(output -> Pointers.pinOutput(this, output));
        sideUses.keySet().forEach(use -> pinShared(use.op().input(use.input())));
        return this;
    }

    /** Pins a value that several consumers slice individually. */
    private void pinShared(Value value) {
        for (Dim dim : dims(value)) {
            dim.atoms().forEach(atom -> atom.pin("shared by blocks that each take their own slice of it"));
        }
    }

    public Program program() {
        return program;
    }

    public Trace trace() {
        return trace;
    }

    /** Whether the model takes rows of one length only, so that positions cannot be told by varying extents. */
    boolean hasFixedLength() {
        return graph.fixedLength().isPresent();
    }

    /** The input that takes token ids; empty where the model takes something else. */
    Optional<Value> tokens() {
        return graph.rows().filter(input -> graph.takesTokens()).map(input -> program.input(input.name()));
    }

    /** The output over the vocabulary; empty where there is none. */
    public Optional<Value> logits() {
        return graph.logits().map(output -> program.output(output.name()));
    }

    /** Whether a value is a graph input that holds what the model remembers from step to step, such as a cache. */
    public boolean isState(Value value) {
        return value.producer() == null
                && graph.states().stream()
                        .anyMatch(state -> state.input().name().equals(value.name()));
    }

    /** What the model remembers from step to step. */
    List<State> states() {
        return graph.states();
    }

    /** Whether a value is a graph output that a state takes over in the next step. */
    boolean isNextState(Value value) {
        return graph.states().stream().anyMatch(state -> state.output().equals(value.name()));
    }

    public AnalysisFacts facts() {
        return facts;
    }

    /** The dimension along which the values of an integer tensor are indices. */
    Map<Value, Dim> targets() {
        return targets;
    }

    /** The same for the components of an index of several, which lie along the last axis. */
    Map<Value, Dim[]> components() {
        return components;
    }

    Unifier unifier() {
        return unifier;
    }

    Elements elements() {
        return elements;
    }

    /**
     * The elements of a small integer value after pruning when nothing is patched.
     *
     * @param run the traced run, 0 or 1
     * @return null when the value is not a small integer tensor
     */
    public long[] unpatchedElements(Value value, int run, Dim.Keep keep) {
        Element[] terms = elements.of(value);
        return terms == null
                ? null
                : Arrays.stream(terms).mapToLong(term -> term.value(run, keep)).toArray();
    }

    /** Dimensions of each constant at each of its uses. Vectors are not tied between uses. */
    public Map<Use, Dim[]> constantUses() {
        return constantUses;
    }

    /**
     * The dimensions of the matrix that the packed blocks at {@code use} stand for: of MatMulNBits (N, K), without what
     * fills the last block of each row. Null for any other use.
     */
    public List<Dim> quantisedMatrix(Use use) {
        if (!use.op().node().is("MatMulNBits") || use.input() != 1) {
            return null;
        }
        Dim[] activations = operand(use.op(), 0);
        Dim[] packed = operand(use.op(), 1);
        return activations == null ? null : List.of(packed[0], activations[activations.length - 1]);
    }

    /**
     * The channels in each unit of an inner or outer width, which are several where quantisation blocks or bytes must be
     * kept intact. The contracted axis gives their number. Other axes may carry the channels twice (fused projections) or
     * by blocks.
     */
    public int channels(Dim.Atom atom) {
        return (int) facts.contractions().stream()
                .filter(contraction ->
                        contraction.withConstant() && contraction.dim().atoms().contains(atom))
                .mapToLong(contraction -> contraction.dim().size(0) / atom.size(0))
                .min()
                .orElse(1);
    }

    /** Dimensions of values beside the residual stream at each use by a block. */
    public Map<Use, Dim[]> sideUses() {
        return sideUses;
    }

    /** The dimensions of a value, one for each axis; null when it was not traced. */
    public Dim[] dims(Value value) {
        Dim[] dims = values.get(value);
        if (dims == null && value.constant() == null && trace.isKnown(value)) {
            dims = fresh(trace.shape(value, 0), trace.shape(value, 1));
            values.put(value, dims);
        }
        return dims != null ? dims : value.constant() != null ? shared(value) : null;
    }

    /** The dimensions of an operand at this use, one for each axis; null when it is omitted or was not traced. */
    public Dim[] operand(Op op, int input) {
        Value value = op.input(input);
        if (value == null) {
            return null;
        }
        if (value.constant() == null) {
            Dim[] dims = dims(value);
            Use use = new Use(op, input);
            return dims == null || !untied.contains(use) ? dims : sideUses.computeIfAbsent(use, key -> copies(dims));
        }
        return constantUses.computeIfAbsent(new Use(op, input), use -> {
            // Exporters share equal vectors between unrelated uses (all-one norms, zero biases, head counts). A matrix
            // with several uses is shared on purpose (tied embeddings).
            boolean shared = value.constant().rank() >= 2;
            return shared
                    ? shared(value)
                    : fresh(value.constant().shape(), value.constant().shape());
        });
    }

    /** Dimensions of the same structure with fresh atoms, except for dynamic ones. */
    private Dim[] copies(Dim[] dims) {
        Map<Dim.Atom, Dim> fresh = new HashMap<>();
        return Arrays.stream(dims)
                .map(dim -> dim.copy(atom -> fresh.computeIfAbsent(
                        atom, key -> key.isDynamic() ? key : unifier.atom(key.size(0), key.size(1)))))
                .toArray(Dim[]::new);
    }

    private Dim[] shared(Value value) {
        return values.computeIfAbsent(
                value, key -> fresh(key.constant().shape(), key.constant().shape()));
    }

    private Dim[] fresh(long[] first, long[] second) {
        Dim[] dims = new Dim[first.length];
        for (int axis = 0; axis < dims.length; axis++) {
            dims[axis] = first[axis] == 1 && second[axis] == 1 ? Dim.ONE : unifier.atom(first[axis], second[axis]);
            if (first[axis] == 0 || second[axis] == 0) {
                ((Dim.Atom) dims[axis]).markDynamic();
            }
        }
        return dims;
    }

    /**
     * Pins a size that is cast to a floating-point number and combined with activations, such as an attention scale
     * computed from the head size. The model's function depends on this extent.
     */
    private void pinSizesUsedAsNumbers(Op op) {
        boolean toNumber = op.node().is("Cast")
                && trace.dtype(op.input(0)).isIndex()
                && trace.dtype(op.output(0)).isFloat();
        Element[] terms = toNumber ? elements.of(op.input(0)) : null;
        if (terms != null && meetsActivations(op.output(0), 8)) {
            for (Element term : terms) {
                term.forEachDim(dim -> dim.atoms()
                        .forEach(atom -> atom.pin("its size is used as a number at node "
                                + op.node().label())));
            }
        }
    }

    private boolean meetsActivations(Value value, int depth) {
        long[] shape = trace.shape(value, 0);
        if (shape == null || !trace.dtype(value).isFloat() || depth == 0) {
            return false;
        }
        return shape.length >= 2
                || value.uses().stream()
                        .map(use -> use.op().output(0))
                        .anyMatch(next -> next != null && meetsActivations(next, depth - 1));
    }

    private void declareInput(Value value, Set<Integer> ofRows) {
        Dim[] dims = dims(value);
        for (int axis : dims == null ? Set.<Integer>of() : ofRows) {
            if (axis < dims.length && dims[axis] instanceof Dim.Atom atom) {
                atom.markDynamic();
            }
        }
        List<ValueInfo.Extent> declared =
                value.info() == null ? null : value.info().shape();
        if (dims == null || declared == null || declared.size() != dims.length) {
            return;
        }
        for (int axis = 0; axis < dims.length; axis++) {
            boolean variable = dims[axis] instanceof Dim.Atom atom && atom.size(0) != atom.size(1);
            if (dims[axis] instanceof Dim.Atom atom
                    && !declared.get(axis).isKnown()
                    && (variable || atom.size(0) == 0)) {
                atom.markDynamic();
            }
        }
    }

    /** The atoms of constants, each with the axes that have it, in program order. */
    Map<Dim.Atom, List<Member>> members() {
        Map<Dim.Atom, List<Member>> members = new LinkedHashMap<>();
        constantUses.forEach((use, dims) -> {
            Tensor tensor = use.op().input(use.input()).constant();
            for (int axis = 0; axis < dims.length; axis++) {
                for (Dim.Atom atom : dims[axis].atoms()) {
                    members.computeIfAbsent(atom, key -> new ArrayList<>())
                            .add(new Member(use, axis, dims[axis], tensor));
                }
            }
        });
        return members;
    }

    /**
     * One axis of a constant, at one of its uses, that has an atom.
     *
     * @param dim the full dimension of the axis
     */
    public record Member(Use use, int axis, Dim dim, Tensor tensor) {}
}
