// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.UsageException;
import io.onnxprune.option.Option;
import java.util.Locale;
import java.util.OptionalDouble;

/**
 * How the shares that layers lose differ (Incremental Pruning Ratio: SlimGPT, arXiv 2412.18110): layer i of n loses r₀ +
 * (r₁ - r₀)·f(i), with f(i) = ln(i + 1) / ln(n) or i / (n - 1), and the share r₁ of the last layer such that the whole
 * target is met.
 *
 * @param shape which f
 * @param first r₀, in [0, 1); empty for 0.3125 of the share that all layers would lose alike, the paper's 6.25 % of 20 %
 */
public record Schedule(
        @Option(
                value =
                        "For scope local: the same share in every layer, or a share that changes from the first layer"
                                + " that may lose something to the last, by the logarithm of its number or evenly; the target is met all the same.",
                key = "schedule")
        Shape shape,

        @Option(
                value =
                        "For schedule log and linear: the share that the first layer loses; one above the target makes the"
                                + " shares fall. Without it 0.3125 of the share that a uniform schedule takes.",
                key = "first-ratio")
        OptionalDouble first) {
    /** The paper's only example starts with 6.25 % where 20 % go; at other targets the curve keeps its form. */
    private static final double USUAL_START = 0.0625 / 0.2;

    /** How shares change from layer to layer. */
    public enum Shape {
        /** All layers lose the same share. */
        UNIFORM,
        LOG,
        LINEAR
    }

    /** Checks that the first share is one, and has an effect. */
    public Schedule {
        if (first.isPresent() && shape == Shape.UNIFORM) {
            throw new UsageException(
                    "first-ratio has no effect in schedule uniform, where all layers lose alike; add schedule log or"
                            + " linear");
        }
        if (first.isPresent() && !(first.getAsDouble() >= 0 && first.getAsDouble() < 1)) {
            throw new UsageException("first-ratio must be at least 0 and less than 1, not " + first.getAsDouble());
        }
    }

    /** All layers lose the same share. */
    public Schedule() {
        this(Shape.UNIFORM, OptionalDouble.empty());
    }

    /** All layers lose the same share. */
    public static Schedule uniform() {
        return new Schedule(Shape.UNIFORM, OptionalDouble.empty());
    }

    /** The schedule for a part of the way to the target. */
    Schedule scaled(double part) {
        return first.isEmpty() ? this : new Schedule(shape, OptionalDouble.of(part * first.getAsDouble()));
    }

    /** The share of the first layer, where {@code alike} is what each would lose in a uniform schedule. */
    double first(double alike) {
        return first.orElse(USUAL_START * alike);
    }

    /** f(i) in [0, 1], for layer {@code index} of {@code layers}; 1 where there is only one, which has to lose it all. */
    double progress(int index, int layers) {
        return layers == 1
                ? 1
                : switch (shape) {
                    case UNIFORM -> 1;
                    case LOG -> Math.log(index + 1) / Math.log(layers);
                    case LINEAR -> index / (layers - 1.0);
                };
    }

    @Override
    public String toString() {
        return shape.name().toLowerCase(Locale.ROOT);
    }
}
