package io.onnxprune.obs;

import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import java.util.ArrayList;
import java.util.List;

/**
 * Order and cost of removing units one after another, the remaining weights being the best ones at any time.
 */
public final class Elimination {
    /** How the next unit is chosen; costs are exact in any case. */
    public enum Rule {
        /** The unit whose removal now costs least. */
        EXACT,
        /** SlimGPT's score of heads: Σ w²/D with D the squared diagonal of the Cholesky factor of the unit's part of the inverse. */
        GROUPED_CHOLESKY,
        /** SlimGPT's dynamic group size: scores hold for a group of units, which shrinks as the end comes nearer. */
        DYNAMIC_GROUPS
    }

    private Elimination() {}

    /**
     * Removes {@code count} units.
     *
     * @param consumers the layers that read the dimension, with the same number of units; their costs add up
     * @throws io.onnxprune.diag.UserException when a number is not finite or a second moment cannot be inverted
     */
    public static Removal of(List<Quadratic> consumers, int count, Rule rule, Damping damping) {
        int units = consumers.get(0).units().size();
        for (Quadratic consumer : consumers) {
            damping.checkFinite(consumer.a(), "second moment of the inputs");
            damping.checkFinite(consumer.w(), "weight");
            damping.checkFinite(consumer.g(), "second moment of the gradients");
            if (consumer.units().size() != units) {
                throw new IllegalArgumentException("consumers have different numbers of units");
            }
        }
        if (count < 0 || count > units) {
            throw new IllegalArgumentException(count + " of " + units + " units");
        }
        int channels = consumers.stream().mapToInt(c -> c.a().rows()).max().orElseThrow();
        return damping.raise(channels, share -> remove(consumers, count, share));
    }

    private static Removal remove(List<Quadratic> consumers, int count, double share) {
        List<State> states = new ArrayList<>();
        try {
            for (Quadratic consumer : consumers) {
                State state = State.of(consumer, share);
                if (state == null) {
                    return null;
                }
                states.add(state);
            }
            int units = consumers.get(0).units().size();
            boolean[] gone = new boolean[units];
            int[] order = new int[count];
            double[] costs = new double[count];
            for (int i = 0; i < count; i++) {
                int best = -1;
                double least = Double.POSITIVE_INFINITY;
                for (int unit = 0; unit < units; unit++) {
                    int candidate = unit;
                    double cost = gone[unit]
                            ? Double.POSITIVE_INFINITY
                            : states.stream()
                                    .mapToDouble(s -> s.cost(candidate))
                                    .sum();
                    if (cost < least) {
                        least = cost;
                        best = unit;
                    }
                }
                int chosen = best;
                gone[chosen] = true;
                states.forEach(state -> state.remove(chosen));
                order[i] = chosen;
                costs[i] = Math.max(0, least);
            }
            return new Removal(order, costs, share);
        } finally {
            states.forEach(State::close);
        }
    }

    /** Inverse and weights of one consumer. */
    private record State(Quadratic consumer, Matrix p, Matrix w) implements AutoCloseable {
        static State of(Quadratic consumer, double share) {
            Matrix p = Damping.factored(consumer.a().copy(), share * Damping.meanDiagonal(consumer.a()));
            if (p == null) {
                return null;
            }
            Cholesky.invert(p);
            Blas.mirror(p);
            Matrix w = consumer.w().copy();
            double[] zeros = new double[w.columns()];
            for (int i = 0; i < w.rows(); i++) {
                if (consumer.a().get(i, i) <= 0) {
                    w.setRow(i, zeros);
                }
            }
            return new State(consumer, p, w);
        }

        double cost(int unit) {
            int[] b = consumer.units().get(unit);
            try (Matrix u = p.select(b, b);
                    Matrix v = w.selectRows(b)) {
                Cholesky.factor(u);
                Blas.solveTriangle(u, true, v);
                if (consumer.g() == null) {
                    return 0.5 * dot(v, v);
                }
                try (Matrix vg = Blas.product(v, consumer.g())) {
                    return 0.5 * dot(vg, v);
                }
            }
        }

        void remove(int unit) {
            int[] b = consumer.units().get(unit);
            try (Matrix u = p.select(b, b);
                    Matrix v = w.selectRows(b);
                    Matrix l = p.selectRows(b)) {
                Cholesky.factor(u);
                Blas.solveTriangle(u, true, v);
                Blas.solveTriangle(u, true, l);
                Blas.multiply(-1, l, true, v, false, 1, w);
                Blas.multiply(-1, l, true, l, false, 1, p);
            }
        }

        private static double dot(Matrix a, Matrix b) {
            double sum = 0;
            for (int i = 0; i < a.rows(); i++) {
                for (int j = 0; j < a.columns(); j++) {
                    sum += a.get(i, j) * b.get(i, j);
                }
            }
            return sum;
        }

        @Override
        public void close() {
            p.close();
            w.close();
        }
    }
}
