// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.rewrite;

import io.onnxprune.dims.AnalysisFacts.Mean;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.DimensionAnalysis;
import io.onnxprune.dims.DimensionAnalysis.Member;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import io.onnxprune.ir.Floats;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;

/**
 * Corrects norm weights when the hidden width is pruned. The normalisations of the residual stream then average over
 * fewer channels. If the kept channels have more (or less) than their share of the signal's energy, normalised values
 * become too small (or too large). The norm weights are therefore scaled by √(mean energy of the kept channels / mean
 * energy of all). The energy of a channel is taken from the weights that produce it.
 */
public final class NormCorrection {
    private static final int MAX_STEPS = 10;
    private static final Set<String> STATISTIC_OPERATORS =
            Set.of("Add", "Sqrt", "Div", "Reciprocal", "Mul", "Pow", "Cast", "Identity", "Sub");

    private NormCorrection() {}

    /** Full-size norm weights for a plan that prunes the hidden dimension; empty for any other plan. */
    public static Map<Value, Tensor> of(Structure structure, Dim.Keep keep) {
        Map<Value, Tensor> updates = new HashMap<>();
        for (Dimension hidden : structure.dimensions()) {
            int[] kept = keep.kept(hidden.atom());
            boolean single = structure.stream().width().size() == 1;
            if (hidden.role() == Role.HIDDEN && kept != null && single) {
                float factor = factor(energies(structure, hidden), kept);
                for (Mean mean : structure.analysis().facts().means()) {
                    Value weight = weightOf(structure.analysis(), mean, hidden.atom());
                    if (weight != null && weight.constant().dtype().isFloat()) {
                        updates.computeIfAbsent(weight, value -> scaled(value.constant(), factor));
                    }
                }
            }
        }
        return updates;
    }

    private static float factor(double[] energies, int[] kept) {
        double all = Arrays.stream(energies).average().orElse(0);
        double keptMean = Arrays.stream(kept)
                .mapToDouble(index -> energies[index])
                .average()
                .orElse(0);
        return all > 0 && keptMean > 0 ? (float) Math.sqrt(keptMean / all) : 1;
    }

    /**
     * Sums of squares by hidden channel of the weight matrices that produce hidden vectors, with the channel as last
     * axis of the output.
     */
    private static double[] energies(Structure structure, Dimension hidden) {
        double[] energies = new double[hidden.size()];
        for (Member member : hidden.members()) {
            Tensor tensor = member.tensor();
            boolean producesHidden = tensor.rank() == 2
                    && tensor.dtype().isFloat()
                    && member.dim().atoms().size() == 1
                    && member.dim().size(0) == hidden.size()
                    && yieldsHidden(structure.analysis(), member.use(), hidden.atom());
            if (producesHidden) {
                boolean last = member.axis() == 1;
                long columns = tensor.dim(1);
                Floats.forEachBlock(tensor, (first, values, count) -> {
                    for (int i = 0; i < count; i++) {
                        long position = first + i;
                        energies[(int) (last ? position % columns : position / columns)] +=
                                (double) values[i] * values[i];
                    }
                });
            }
        }
        return energies;
    }

    private static boolean yieldsHidden(DimensionAnalysis analysis, Use use, Dim.Atom hidden) {
        Value output = use.op().output(0);
        Dim[] dims = output == null ? null : analysis.dims(output);
        return dims != null && dims.length > 0 && dims[dims.length - 1].atoms().contains(hidden);
    }

    /**
     * The scale of a normalisation over {@code hidden}: its operand, or the next vector that its statistic is combined
     * with; null when there is none.
     */
    private static Value weightOf(DimensionAnalysis analysis, Mean mean, Dim.Atom hidden) {
        Dim[] dims = analysis.operand(mean.op(), mean.input());
        boolean over = mean.axes().stream().anyMatch(axis -> dims[axis].atoms().contains(hidden));
        if (!over) {
            return null;
        }
        if (!mean.op().node().is("ReduceMean")) {
            return vectorOperand(analysis, mean.op(), hidden);
        }
        Op op = mean.op();
        for (int step = 0; step < MAX_STEPS && op != null; step++) {
            Value weight = op.node().is("Mul") ? vectorOperand(analysis, op, hidden) : null;
            if (weight != null) {
                return weight;
            }
            Value output = op.output(0);
            op = output == null
                    ? null
                    : output.uses().stream()
                            .map(Use::op)
                            .filter(next ->
                                    STATISTIC_OPERATORS.contains(next.node().op()))
                            .findFirst()
                            .orElse(null);
        }
        return null;
    }

    private static Value vectorOperand(DimensionAnalysis analysis, Op op, Dim.Atom hidden) {
        for (int i = 0; i < op.inputs().size(); i++) {
            Value value = op.input(i);
            boolean vector = value != null
                    && value.constant() != null
                    && value.constant().rank() == 1;
            if (vector && analysis.operand(op, i)[0].atoms().contains(hidden)) {
                return value;
            }
        }
        return null;
    }

    private static Tensor scaled(Tensor tensor, float factor) {
        float[] values = tensor.toFloats();
        for (int i = 0; i < values.length; i++) {
            values[i] *= factor;
        }
        return Tensor.ofFloats(tensor.dtype(), tensor.shape(), values);
    }
}
