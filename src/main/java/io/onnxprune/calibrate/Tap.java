// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

/**
 * A statistic that is reduced inside the graph and summed over all rows. L_n is the mean next-token cross-entropy of row
 * n, and gradients are those of Σ_n L_n.
 */
public sealed interface Tap {
    /** Σ_n ∂L_n/∂W, in the shape of the initializer. */
    record Gradient(String parameter) implements Tap {
        @Override
        public String subject() {
            return parameter;
        }
    }

    /** Σ_n (∂L_n/∂W)², element by element: N times the diagonal of the empirical Fisher matrix. */
    record SquaredGradient(String parameter) implements Tap {
        @Override
        public String subject() {
            return parameter;
        }
    }

    /** Xᵀ X over all positions, {@code [width, width]}. */
    record SecondMoment(Activation activation) implements Tap {
        @Override
        public String subject() {
            return activation.value();
        }
    }

    /** Σ x² over all positions, {@code [width]}. */
    record Squares(Activation activation) implements Tap {
        @Override
        public String subject() {
            return activation.value();
        }
    }

    /** Σ x over all positions, {@code [width]}. */
    record Total(Activation activation) implements Tap {
        @Override
        public String subject() {
            return activation.value();
        }
    }

    /**
     * Σ cos(x, y) over all positions, and the number of positions, {@code [2]}. x and y are the vectors of a position
     * in two values. A zero vector counts as cosine 0. One minus the ratio is the block influence of the part of the
     * model between the two values (Men et al., ShortGPT, arXiv 2403.03853, section 3).
     *
     * @param from a value that is computed before {@code to}, or in the same segment
     * @param to the later value
     */
    record Similarity(Activation from, Activation to) implements Tap {
        /**
         * Checks the widths.
         *
         * @throws IllegalArgumentException if the values have different widths
         */
        public Similarity {
            if (from.width() != to.width()) {
                throw new IllegalArgumentException(from + " and " + to + " have different widths");
            }
        }

        @Override
        public String subject() {
            return to.value();
        }
    }

    /**
     * Xᵀ E over all positions, {@code [width, width of the stream]}. E is the value of the reference minus that of the
     * model. Only a {@link SequentialRun} has a reference.
     *
     * @param activation X
     * @param stream the value at the end of the piece that computes the activation
     */
    record ErrorMoment(Activation activation, Activation stream) implements Tap {
        @Override
        public String subject() {
            return activation.value();
        }
    }

    /** Σ E over all positions, {@code [width]}, with E as for {@link ErrorMoment}. */
    record TotalError(Activation stream) implements Tap {
        @Override
        public String subject() {
            return stream.value();
        }
    }

    /** The number of positions, {@code [1]}. There are fewer than tokens where an expert gets only some of them. */
    record Positions(Activation activation) implements Tap {
        @Override
        public String subject() {
            return activation.value();
        }
    }

    /** Dᵀ D over all positions, {@code [width, width]}, with D = ∂L_n/∂Y. */
    record GradientSecondMoment(Activation activation) implements Tap {
        @Override
        public String subject() {
            return activation.value();
        }
    }

    /**
     * Σ y ⊙ ∂L_n/∂y over all positions, {@code [width]}. For the output of a linear layer it is Σ w ⊙ g over the
     * weights of each output channel.
     */
    record Salience(Activation activation) implements Tap {
        @Override
        public String subject() {
            return activation.value();
        }
    }

    /**
     * What the rows of an activation contribute, and the number of rows that contribute anything, for each expert:
     * {@code [experts, 2]}.
     *
     * @param activation y, the weighted outputs of experts before they are added
     * @param index the value with the expert of each row; empty if each expert has as many rows, one expert after the
     *     other
     * @param experts their number
     */
    record Contribution(Activation activation, String index, int experts, Measure measure) implements Tap {
        /** What is summed over rows. */
        public enum Measure {
            /** ‖y‖. */
            LENGTH,
            /** |y · ∂L_n/∂y|: to first order, how much the loss changes without the row. */
            CHANGE,
            /** (y · ∂L_n/∂y)². */
            SQUARED_CHANGE
        }

        @Override
        public String subject() {
            return activation.value();
        }
    }

    /** The name of the initializer or activation of the statistic. */
    String subject();

    /** Whether the statistic needs gradients and so a backward pass. */
    default boolean needsGradients() {
        return this instanceof Gradient
                || this instanceof SquaredGradient
                || this instanceof GradientSecondMoment
                || this instanceof Salience
                || this instanceof Contribution contribution && contribution.measure() != Contribution.Measure.LENGTH;
    }
}
