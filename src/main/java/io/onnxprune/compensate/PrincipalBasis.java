// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.SymmetricEigen;
import io.onnxprune.calibrate.Activation;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.LoweredLinear;
import io.onnxprune.calibrate.Objective;
import io.onnxprune.calibrate.Statistics;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.UserException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Set;

/**
 * The principal components of what linear layers read from the residual stream: the eigenvectors of Σ w A / tr(A), A = XᵀX of
 * one input. The weight w is 1, or tr(DᵀD) of the gradients D of the loss by X.
 */
public final class PrincipalBasis {
    private PrincipalBasis() {}

    /**
     * Measures the inputs and finds their components, by falling importance.
     *
     * @param rows token ids
     * @param readers names of the weights of the linear layers
     * @param byLoss whether gradients weight the inputs
     * @return orthogonal, {@code [width, width]}, with the components as columns; the caller closes it
     * @throws UserException if none of the linear layers is run, or an operator has no derivative
     */
    public static Matrix of(Calibrator model, List<long[]> rows, Set<String> readers, boolean byLoss) {
        Set<Activation> inputs = new LinkedHashSet<>();
        for (LoweredLinear linear : model.linears()) {
            if (readers.contains(linear.weight())) {
                inputs.add(linear.input());
            }
        }
        if (inputs.isEmpty()) {
            throw new UserException(
                    "no linear layer reads normalised values of the residual stream, so it has no basis to prefer");
        }
        List<Tap> taps = new ArrayList<>();
        for (Activation input : inputs) {
            taps.add(new Tap.SecondMoment(input));
            if (byLoss) {
                taps.add(new Tap.GradientSecondMoment(input));
            }
        }
        try (Statistics statistics = Statistics.measure(model, rows, taps);
                Matrix moment = moment(statistics, inputs, byLoss)) {
            return SymmetricEigen.of(moment).vectors();
        }
    }

    private static Matrix moment(Statistics statistics, Set<Activation> inputs, boolean byLoss) {
        int width = inputs.iterator().next().width();
        Matrix sum = Matrix.zeros(width, width);
        for (Activation input : inputs) {
            try (Matrix a = statistics.inputs(input)) {
                double weight = byLoss ? gradients(statistics, input) : 1;
                WeightStore.add(weight / trace(a), a, sum);
            }
        }
        return sum;
    }

    private static double gradients(Statistics statistics, Activation input) {
        try (Matrix g = statistics.gradients(input)) {
            return trace(g);
        }
    }

    private static double trace(Matrix matrix) {
        return Arrays.stream(matrix.diagonal()).sum();
    }

    /** The loss of one row of tokens. */
    public static double loss(Calibrator model, long[] row) {
        return model.losses(Objective.ofNextTokens(List.of(row)))[0];
    }
}
