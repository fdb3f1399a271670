// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.plan;

import io.onnxprune.diag.UsageException;
import io.onnxprune.option.Option;
import java.util.Locale;
import java.util.OptionalDouble;

/**
 * The pruning ratios of the layers (Incremental Pruning Ratio of SlimGPT, arXiv 2412.18110). Layer i of n loses r₀ +
 * (r₁ - r₀)·f(i), with f(i) = ln(i + 1) / ln(n) or i / (n - 1). The ratio r₁ of the last layer is chosen so that the
 * total target is met.
 *
 * @param shape the function f
 * @param first r₀, in [0, 1); empty for 0.3125 of the ratio of a uniform schedule, as the paper's 6.25 % for a
 *     target of 20 %
 */
public record Schedule(
        @Option(
                value =
                        "For scope local: the same ratio in every layer, or a ratio that changes from the first prunable layer"
                                + " to the last, by the logarithm of the layer's number or linearly; the total target is met in any case.",
                key = "schedule")
        Shape shape,

        @Option(
                value =
                        "For schedule log and linear: the ratio of the first layer; a ratio above the target makes later ratios"
                                + " decrease. Without it, 0.3125 of the ratio of a uniform schedule.",
                key = "first-ratio")
        OptionalDouble first) {
    /**
     * r₀ as a share of the target. The paper's only example starts with 6.25 % for a target of 20 %. At other targets
     * the curve keeps its form.
     */
    private static final double USUAL_START = 0.0625 / 0.2;

    /** How the ratio changes from layer to layer. */
    public enum Shape {
        /** All layers have the same ratio. */
        UNIFORM,
        /** f(i) = ln(i + 1) / ln(n). */
        LOG,
        /** f(i) = i / (n - 1). */
        LINEAR
    }

    /**
     * Checks the first ratio.
     *
     * @throws UsageException if the first ratio is outside [0, 1), or has no effect in a uniform schedule
     */
    public Schedule {
        if (first.isPresent() && shape == Shape.UNIFORM) {
            throw new UsageException(
                    "first-ratio has no effect in schedule uniform, where all layers have the same ratio; add schedule log or"
                            + " linear");
        }
        if (first.isPresent() && !(first.getAsDouble() >= 0 && first.getAsDouble() < 1)) {
            throw new UsageException("first-ratio must be at least 0 and less than 1, not " + first.getAsDouble());
        }
    }

    /** One ratio for all layers. */
    public Schedule() {
        this(Shape.UNIFORM, OptionalDouble.empty());
    }

    /** One ratio for all layers. */
    public static Schedule uniform() {
        return new Schedule(Shape.UNIFORM, OptionalDouble.empty());
    }

    /** The schedule for a part of the target. */
    Schedule scaled(double part) {
        return first.isEmpty() ? this : new Schedule(shape, OptionalDouble.of(part * first.getAsDouble()));
    }

    /**
     * The ratio of the first layer.
     *
     * @param uniform the ratio of every layer in a uniform schedule
     */
    double first(double uniform) {
        return first.orElse(USUAL_START * uniform);
    }

    /**
     * f(i) in [0, 1], for layer {@code index} of {@code layers}; 1 for a single layer, which must meet the entire
     * target.
     */
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
