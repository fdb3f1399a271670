// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.dims.Structure;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;

/**
 * Importance of experts by what they contribute. Let gₜ be the gate of expert e for token t, and f(xₜ) the output of the
 * expert. Over the tokens that are routed to e, a score is
 * <ul>
 *   <li>{@link Kind#OUTPUT}: the mean of gₜ · ‖f(xₜ)‖ (REAP, arXiv 2510.13999),
 *   <li>{@link Kind#CHANGE}: the sum of |gₜ · ∂L/∂gₜ|,
 *   <li>{@link Kind#FISHER}: the sum of (gₜ · ∂L/∂gₜ)²,
 *   <li>{@link Kind#DIVERGENCE}: the KL divergence from the model of the same model without e, in nats a token. The tokens
 *       of e are routed anew, and gates are normalised without it, by the operators that are there. Its second-order
 *       form is ½ tr(EᵀE G), with E the change of the mixture's output and G the curvature of the loss there; the
 *       divergence itself needs neither gradients nor the place where experts are added.
 * </ul>
 *
 * <p>An expert that no token is routed to scores 0. Gates of the kept experts need no correction: they are normalised
 * among themselves.
 */
public final class ExpertImportance implements Importance {
    /** What counts as a contribution. */
    public enum Kind {
        OUTPUT,
        CHANGE,
        FISHER,
        DIVERGENCE
    }

    /**
     * Sums for each expert.
     *
     * @param contributions of the kind that was asked for
     * @param tokens number of tokens that the expert contributes to
     */
    @SuppressWarnings("ArrayRecordComponent") // never compared
    public record Sums(double[] contributions, double[] tokens) {}

    /** Measures contributions. */
    public interface Contributions {
        /**
         * Measures experts; sums of pruned ones are 0.
         *
         * @throws UserException if it is not known where the outputs of experts are added
         */
        Map<Dimension, Sums> measure(List<Dimension> experts, Kind kind);
    }

    private final Kind kind;
    private final Contributions contributions;

    /** Creates scores of one kind. */
    public ExpertImportance(Kind kind, Contributions contributions) {
        this.kind = kind;
        this.contributions = contributions;
    }

    /**
     * Refuses structures other than experts.
     *
     * @throws UserException if {@code prune} has others
     */
    public static void require(PruneSet prune) {
        boolean others =
                prune.layers() || prune.blocks() || prune.roles().stream().anyMatch(role -> role != Role.EXPERTS);
        if (others) {
            throw new UserException("metric reap scores experts by their outputs, so it has no score for others of "
                    + prune + "; prune only experts, or choose another metric");
        }
    }

    /** The experts that can be pruned. */
    public static List<Dimension> experts(Structure structure) {
        return structure.dimensions().stream()
                .filter(dimension -> dimension.isPrunable() && dimension.role() == Role.EXPERTS)
                .toList();
    }

    @Override
    public Scores score(Structure structure, Log log) {
        Map<String, double[]> units = new HashMap<>();
        contributions
                .measure(experts(structure), kind)
                .forEach((dimension, sums) -> units.put(dimension.name(), scores(sums)));
        return Scores.ofUnits(units, structure);
    }

    private double[] scores(Sums sums) {
        double[] scores = sums.contributions.clone();
        if (kind == Kind.OUTPUT) {
            Arrays.setAll(scores, expert -> scores[expert] / Math.max(1, sums.tokens[expert]));
        }
        return scores;
    }
}
