// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.dims.ResidualStream;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/**
 * Where the basis of the residual stream can be seen: every constant with the hidden axis, and how it is used. Follows each
 * value of the stream forwards. Each operator on the way must commute with an orthogonal change of basis, up to factors and
 * terms of channels that the linear layers behind it can take over; the first one that does not is an error with its node.
 */
final class StreamBasis {
    /** How a constant meets the stream. */
    enum Kind {
        /** A matrix that is multiplied with values of the stream from the right: it sums over the hidden axis. */
        READ,
        /** A matrix, table or vector whose hidden axis becomes that of the stream. */
        WRITE,
        /** Factors of channels, as of a norm. */
        SCALE,
        /** Terms of channels behind a norm. */
        SHIFT
    }

    /**
     * A constant with the hidden axis.
     *
     * @param op the operator that reads, writes, scales or shifts
     * @param use the use of the constant, which may have a transpose behind it
     * @param axis the hidden axis of the constant
     * @param frame for READ, the values that it reads
     */
    record Place(Kind kind, Op op, Use use, int axis, Frame frame) {
        Value constant() {
            return use.op().input(use.input());
        }
    }

    /**
     * How a value v depends on the one that it will be after factors and terms are folded, v': v = v' ⊙ scale + shift.
     *
     * @param scale null for ones
     * @param shift null for zeros
     * @param normalised whether its length is that of a norm
     * @param centred whether its mean over channels is zero
     */
    @SuppressWarnings("ArrayRecordComponent") // never compared
    record Frame(double[] scale, double[] shift, boolean normalised, boolean centred) {
        static final Frame PLAIN = new Frame(null, null, false, false);

        boolean isPlain() {
            return scale == null && shift == null;
        }
    }

    private static final Set<String> LAYOUT = Set.of(
            "Identity",
            "Cast",
            "Reshape",
            "Transpose",
            "Unsqueeze",
            "Squeeze",
            "Slice",
            "Gather",
            "Concat",
            "Split",
            "Expand",
            "Dropout");

    private final DimensionAnalysis analysis;
    private final Dimension hidden;
    private final Map<Value, Frame> frames = new HashMap<>();
    private final Map<Value, Value> squares = new HashMap<>();
    private final Map<Value, Value> means = new HashMap<>();
    private final List<Place> places = new ArrayList<>();
    private final Map<Op, Value> centrings = new LinkedHashMap<>();
    private Op uncentred;

    private StreamBasis(Structure structure, Dimension hidden) {
        this.analysis = structure.analysis();
        this.hidden = hidden;
    }

    /**
     * Follows the residual stream of a model.
     *
     * @throws UserException with the node that has to stay in the present basis
     */
    static StreamBasis of(Structure structure) {
        Dimension hidden = structure.dimensions().stream()
                .filter(dimension -> dimension.role() == Role.HIDDEN)
                .findFirst()
                .orElseThrow(
                        () -> new UserException("the basis of the hidden width cannot change: the model has none"));
        if (!hidden.isPrunable()) {
            throw new UserException("the basis of the hidden width cannot change: " + hidden.pin());
        }
        StreamBasis basis = new StreamBasis(structure, hidden);
        hidden.members().stream()
                .filter(member -> !member.tensor().dtype().isFloat())
                .findFirst()
                .ifPresent(member -> {
                    throw basis.refused(member.use().op(), "has quantised weights");
                });
        structure.analysis().program().inputs().forEach(input -> basis.requireAbsent(input, "input"));
        structure.analysis().program().outputs().forEach(output -> basis.requireAbsent(output, "output"));
        structure.analysis().program().ops().forEach(basis::follow);
        if (basis.uncentred != null && !basis.centrings.isEmpty()) {
            throw basis.refused(
                    basis.uncentred,
                    "reads the stream with its mean, which node "
                            + basis.centrings.keySet().iterator().next().node().label() + " subtracts");
        }
        return basis;
    }

    Dimension hidden() {
        return hidden;
    }

    List<Place> places() {
        return places;
    }

    /** The operators that subtract the mean of the stream: norms, or differences from a mean with the value they keep. */
    Map<Op, Value> centrings() {
        return centrings;
    }

    private UserException refused(Op op, String why) {
        return new UserException(
                "the basis of the hidden width cannot change: node " + op.node().label() + " " + why);
    }

    private void requireAbsent(Value value, String what) {
        if (axis(analysis.dims(value)) != -1) {
            throw new UserException(
                    "the basis of the hidden width cannot change: graph " + what + " \"" + value.name() + "\" has it");
        }
    }

    /** The hidden axis; -1 for none, -2 if it is there in another form. */
    int axis(Dim[] dims) {
        int found = -1;
        for (int i = 0; dims != null && i < dims.length; i++) {
            if (dims[i].atoms().contains(hidden.atom())) {
                found = found == -1 && dims[i].atoms().size() == 1 && dims[i].size(0) == hidden.size() ? i : -2;
            }
        }
        return found;
    }

    private boolean has(Op op, int input) {
        return axis(analysis.operand(op, input)) != -1;
    }

    private void follow(Op op) {
        boolean touches = false;
        boolean constant = true;
        for (int i = 0; i < op.inputs().size(); i++) {
            if (op.input(i) != null && has(op, i)) {
                touches = true;
                constant &= root(op, i) != null;
            }
        }
        boolean yields = op.outputs().stream()
                .anyMatch(value -> value != null && value.constant() == null && axis(analysis.dims(value)) != -1);
        boolean shapeOnly = op.node().is("Shape") || op.node().is("Size");
        boolean matrix =
                op.node().is("Transpose") || op.node().is("Cast") || op.node().is("Identity");
        if (!touches && !yields || shapeOnly || touches && constant && matrix) {
            return;
        }
        if (!touches) {
            throw refused(op, "makes values of this width from something else");
        }
        StreamRules.apply(this, op);
    }

    // What the rules of operators use.

    DimensionAnalysis analysis() {
        return analysis;
    }

    Frame frame(Op op, int input) {
        return op.input(input) == null ? null : frames.get(op.input(input));
    }

    Frame frame(Value value) {
        return frames.get(value);
    }

    /** The frame of an operand that must have no factors and terms of channels. */
    Frame plain(Op op, int input) {
        Frame frame = frame(op, input);
        if (frame == null || !frame.isPlain()) {
            throw refused(op, "needs the factors of channels that a norm or a product before it applies");
        }
        return frame;
    }

    void yields(Op op, int output, Frame frame) {
        if (op.output(output) != null) {
            if (axis(analysis.dims(op.output(output))) < 0) {
                throw refused(op, "gives this width another form");
            }
            frames.put(op.output(output), frame);
        }
    }

    UserException unknown(Op op) {
        return refused(op, "is not known to commute with a change of basis");
    }

    UserException because(Op op, String why) {
        return refused(op, why);
    }

    static boolean isLayout(Op op) {
        return LAYOUT.contains(op.node().op()) && op.node().domain().isEmpty();
    }

    Map<Value, Value> squares() {
        return squares;
    }

    Map<Value, Value> means() {
        return means;
    }

    void readsMean(Op op, Frame frame) {
        if (!frame.centred && uncentred == null) {
            uncentred = op;
        }
    }

    void centres(Op op, Value kept) {
        centrings.put(op, kept);
    }

    /** The constant behind transposes, casts and copies of an operand; null if it is computed. */
    Use root(Op op, int input) {
        Use use = new Use(op, input);
        while (use.op().input(use.input()).constant() == null) {
            Op before = use.op().input(use.input()).producer();
            boolean moved = before != null
                    && (before.node().is("Transpose")
                            || before.node().is("Cast")
                            || before.node().is("Identity"));
            if (!moved) {
                return null;
            }
            use = new Use(before, 0);
        }
        return use;
    }

    /** Records a constant of floating-point numbers. {@code operandAxis} is its hidden axis as the operator sees it. */
    void place(Kind kind, Op op, int input, int operandAxis, Frame frame) {
        Use use = root(op, input);
        if (use == null) {
            throw refused(op, "has weights that are computed or not constant");
        }
        Tensor tensor = use.op().input(use.input()).constant();
        if (!tensor.dtype().isFloat()) {
            throw refused(op, "has quantised weights");
        }
        int axis = operandAxis;
        for (Op step = op.input(input).producer();
                step != null && tensor.rank() > 1;
                step = step.input(0).producer()) {
            if (step.node().is("Transpose") && step.input(0) != null) {
                List<Long> order = step.node().intsAttribute("perm");
                axis = order == null
                        ? tensor.rank() - 1 - axis
                        : order.get(axis).intValue();
            }
            if (step.inputs().isEmpty()) {
                break;
            }
        }
        if (tensor.rank() > 2 && axis != 0 && axis != tensor.rank() - 1) {
            throw refused(op, "has a stack of matrices");
        }
        places.add(new Place(kind, op, use, axis, frame));
    }

    /** The values of a vector of channels. */
    static double[] vector(Tensor tensor) {
        float[] values = tensor.toFloats();
        double[] result = new double[values.length];
        for (int i = 0; i < values.length; i++) {
            result[i] = values[i];
        }
        return result;
    }

    static boolean isSkip(Op op) {
        return ResidualStream.isSkipNormalization(op);
    }
}
