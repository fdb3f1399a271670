package io.onnxprune.calibrate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.runtime.HostTensor;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.stream.IntStream;

/** What several taps have summed up over the same rows. */
public final class Statistics implements AutoCloseable {
    /** Measures a model's taps: for which rows, and at what cost, is for the giver to say. */
    @FunctionalInterface
    public interface Source {
        /**
         * Measures all of {@code taps} in one run; the caller closes the result.
         *
         * @throws io.onnxprune.diag.UserException when an operator has no derivative, the loss is not finite, or a run fails
         */
        Statistics of(Calibrator model, Collection<Tap> taps);
    }

    private final Map<Tap, HostTensor> sums;
    private final long tokens;

    private Statistics(Map<Tap, HostTensor> sums, long tokens) {
        this.sums = sums;
        this.tokens = tokens;
    }

    /**
     * Runs {@code model} over {@code rows}.
     *
     * @throws io.onnxprune.diag.UserException when an operator has no derivative, the loss is not finite, or a run fails
     */
    public static Statistics measure(Calibrator model, List<long[]> rows, Collection<Tap> taps) {
        Map<Tap, HostTensor> sums = new HashMap<>();
        if (!taps.isEmpty()) {
            model.gather(rows, taps, sums::put);
        }
        return new Statistics(sums, (long) rows.size() * model.length());
    }

    /** The number of tokens in all rows. */
    public long tokens() {
        return tokens;
    }

    /** The sum of a tap, in its shape. */
    public HostTensor sum(Tap tap) {
        HostTensor sum = sums.get(tap);
        if (sum == null) {
            throw new IllegalArgumentException(tap + " was not measured");
        }
        return sum;
    }

    /** XᵀX of an activation, {@code [width, width]}; the caller closes it. */
    public Matrix inputs(Activation activation) {
        return square(new Tap.SecondMoment(activation), activation.width());
    }

    /**
     * The taps that {@link #inputs(Activation, boolean)} needs.
     *
     * @param constant whether there is one more input that is always 1
     */
    public static List<Tap> ofInputs(Activation activation, boolean constant) {
        Tap squares = new Tap.SecondMoment(activation);
        return constant ? List.of(squares, new Tap.Total(activation), new Tap.Positions(activation)) : List.of(squares);
    }

    /**
     * XᵀX of an activation, with one more input that is always 1 if that is asked for; the caller closes it.
     *
     * @return {@code [width, width]}, or {@code [width + 1, width + 1]} with the constant as the last one
     */
    public Matrix inputs(Activation activation, boolean constant) {
        Matrix moment = inputs(activation);
        if (!constant) {
            return moment;
        }
        try (moment) {
            double positions = sum(new Tap.Positions(activation)).asFloats().get(0);
            return moment.bordered(doubles(sum(new Tap.Total(activation))), positions);
        }
    }

    /** The numbers of a vector. */
    public static double[] doubles(HostTensor vector) {
        float[] values = vector.toFloats();
        return IntStream.range(0, values.length).mapToDouble(i -> values[i]).toArray();
    }

    /** DᵀD of an activation's gradients, {@code [width, width]}; the caller closes it. */
    public Matrix gradients(Activation activation) {
        return square(new Tap.GradientSecondMoment(activation), activation.width());
    }

    private Matrix square(Tap tap, int width) {
        return Matrix.of(sum(tap).asFloats(), width, width);
    }

    @Override
    public void close() {
        sums.clear();
    }
}
