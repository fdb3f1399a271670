// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

/** The shapes of the sums of taps. */
final class SumShapes {
    private SumShapes() {}

    /** The shape of the sum of a tap that {@code segment} contributes to. */
    static long[] of(Segment segment, Tap tap) {
        if (tap instanceof Tap.Gradient || tap instanceof Tap.SquaredGradient) {
            return segment.constants().get(tap.subject()).constant().shape();
        }
        return of(tap);
    }

    /** The shape of the sum of a tap of activations, which the tap itself determines. */
    static long[] of(Tap tap) {
        if (tap instanceof Tap.SecondMoment moment) {
            return square(moment.activation());
        }
        if (tap instanceof Tap.GradientSecondMoment moment) {
            return square(moment.activation());
        }
        if (tap instanceof Tap.Squares squares) {
            return vector(squares.activation());
        }
        if (tap instanceof Tap.ErrorMoment error) {
            return new long[] {error.activation().width(), error.stream().width()};
        }
        if (tap instanceof Tap.TotalError error) {
            return vector(error.stream());
        }
        if (tap instanceof Tap.Positions) {
            return new long[] {1};
        }
        if (tap instanceof Tap.Contribution contribution) {
            return new long[] {contribution.experts(), 2};
        }
        if (tap instanceof Tap.Similarity) {
            return new long[] {2};
        }
        return vector(tap instanceof Tap.Total total ? total.activation() : ((Tap.Salience) tap).activation());
    }

    private static long[] square(Activation activation) {
        return new long[] {activation.width(), activation.width()};
    }

    private static long[] vector(Activation activation) {
        return new long[] {activation.width()};
    }
}
