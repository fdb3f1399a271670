package io.onnxprune.compensate;

import io.onnxprune.algebra.Matrix;
import io.onnxprune.calibrate.Activation;
import io.onnxprune.calibrate.Calibrator;
import io.onnxprune.calibrate.Divergence;
import io.onnxprune.calibrate.Linear;
import io.onnxprune.calibrate.Objective;
import io.onnxprune.calibrate.Tap;
import io.onnxprune.diag.Log;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.ResidualStream.Block;
import io.onnxprune.dims.Role;
import io.onnxprune.ir.Program.Op;
import io.onnxprune.ir.Program.Use;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.Newton;
import io.onnxprune.plan.Consumers;
import io.onnxprune.plan.Consumers.Consumer;
import io.onnxprune.rewrite.PrunedState;
import io.onnxprune.runtime.HostTensor;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.HashSet;
import java.util.Iterator;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;

/**
 * Brings the predictions of a pruned model near to those of the whole one: steps along the minimum of the quadratic model that
 * units are removed by, with its linear term, which is not zero once they are gone. For a product X·W
 *
 * <p>ΔW = -α (A + λI)⁻¹ C (G + μI)⁻¹,
 *
 * <p>with A the mean of xᵀx, G that of dᵀd with d the gradient of a token's cross-entropy, and C the gradient by W of a
 * token's divergence from the whole model. A, G and C are measured anew for each step; one α serves all products and is found
 * by a search on some of the rows, so the divergence on those never rises.
 */
public final class LossCorrection {
    /**
     * How weights are corrected.
     *
     * @param steps how often
     * @param damping λ and μ as a share of the mean diagonals of A and G
     * @param all whether all products of the residual blocks change, not only those that sum over what can be pruned
     */
    public record Settings(int steps, double damping, boolean all) {}

    /** What came of it: mean divergence per token from the whole model, in nats, on the rows of the search. */
    public record Result(Map<Value, Tensor> updates, double before, double after) {}

    /** Rows that the length of a step is found on. */
    private static final int SEARCH_ROWS = 32;

    private static final double FIRST_LENGTH = 0.125;
    private static final int HALVINGS = 6;
    private static final int DOUBLINGS = 5;

    private static final Set<Role> INNER =
            EnumSet.of(Role.HEADS, Role.KV_HEADS, Role.QUERY_HEADS, Role.V_HEAD_DIM, Role.FFN);

    private final PrunedState state;
    private final Calibrator model;
    private final List<long[]> rows;
    private final Settings settings;
    private final WeightStore store;
    private final Log log;
    private final Map<Linear, Site> products = new LinkedHashMap<>();
    /** Contents of weights of the smaller model that have changed. */
    private Map<String, Tensor> weights = Map.of();

    private double length = FIRST_LENGTH;

    private LossCorrection(
            PrunedState state,
            Consumers consumers,
            Calibrator model,
            List<long[]> rows,
            Settings settings,
            Path folder,
            Log log) {
        this.state = state;
        this.model = model;
        this.rows = rows;
        this.settings = settings;
        this.store = new WeightStore(folder);
        this.log = log;
        Set<Consumer> wanted = settings.all ? ofBlocks(consumers) : ofDimensions(consumers);
        Sites sites = new Sites(state, consumers);
        for (Linear linear : model.linears()) {
            Site site = sites.of(linear);
            if (site != null && wanted.contains(site.consumer())) {
                products.putIfAbsent(linear, site);
            }
        }
    }

    /**
     * Corrects the model of {@code state}.
     *
     * @param model of that model
     * @param whole of the original, for rows of the same length
     * @param rows token ids
     * @param folder for files of new weights
     * @throws io.onnxprune.diag.UserException when an operator has no derivative or a run fails
     */
    public static Result run(
            PrunedState state,
            Consumers consumers,
            Calibrator model,
            Calibrator whole,
            List<long[]> rows,
            Settings settings,
            Path folder,
            Log log) {
        LossCorrection correction = new LossCorrection(state, consumers, model, rows, settings, folder, log);
        try (Divergence divergence = Divergence.from(whole, model, rows)) {
            return correction.run(divergence);
        }
    }

    private Set<Consumer> ofDimensions(Consumers consumers) {
        Set<Consumer> found = new HashSet<>();
        for (Dimension dimension : state.structure().dimensions()) {
            if (INNER.contains(dimension.role())) {
                found.addAll(consumers.of(dimension));
            }
        }
        return found;
    }

    private Set<Consumer> ofBlocks(Consumers consumers) {
        Set<Op> inside = new HashSet<>();
        for (Block block : state.structure().stream().blocks()) {
            inside.addAll(block.ops());
        }
        Set<Consumer> found = new HashSet<>(consumers.all());
        found.removeIf(consumer -> !isRead(consumer.weight(), inside));
        return found;
    }

    /** Whether one of these applications reads a value, or what casts and transpositions make of it. */
    private static boolean isRead(Value value, Set<Op> ops) {
        for (Use use : value.uses()) {
            Op op = use.op();
            boolean same = op.node().is("Cast")
                    || op.node().is("Transpose")
                    || op.node().is("Identity");
            if (ops.contains(op) || same && isRead(op.output(0), ops)) {
                return true;
            }
        }
        return false;
    }

    private Result run(Divergence divergence) {
        Objective few = divergence.first(SEARCH_ROWS);
        double before = mean(few, weights);
        double reached = before;
        for (int step = 1; step <= settings.steps && !products.isEmpty(); step++) {
            double start = reached;
            Map<Linear, Tensor> directions = directions(slopes(divergence));
            reached = search(few, directions, start);
            log.info(
                    reached < start
                            ? String.format(
                                    Locale.ROOT,
                                    "correction %d of %d: divergence %.4f -> %.4f (step length %.3g)",
                                    step,
                                    settings.steps,
                                    start,
                                    reached,
                                    length)
                            : String.format(
                                    Locale.ROOT,
                                    "correction %d of %d: divergence %.4f does not fall any more",
                                    step,
                                    settings.steps,
                                    start));
            if (!(reached < start)) {
                break;
            }
        }
        return new Result(updates(), before, reached);
    }

    private double mean(Objective rows, Map<String, Tensor> contents) {
        return Arrays.stream(model.withWeights(contents).losses(rows)).average().orElseThrow();
    }

    /** The gradient of the sum of the rows' divergences by each weight, in the weight's shape. */
    private Map<Linear, Tensor> slopes(Divergence divergence) {
        Map<Tap, Linear> taps = new LinkedHashMap<>();
        products.keySet().forEach(linear -> taps.put(new Tap.Gradient(linear.weight()), linear));
        Map<Linear, Tensor> slopes = new HashMap<>();
        current().gather(divergence, taps.keySet(), (tap, sum) -> {
            Site site = products.get(taps.get(tap));
            int[] shape = Arrays.stream(site.weight().shape())
                    .mapToInt(Math::toIntExact)
                    .toArray();
            try (Matrix gradient = Matrix.of(sum.asFloats(), shape[0], shape[1])) {
                slopes.put(taps.get(tap), store.write(gradient, site.consumer().node()));
            }
        });
        return slopes;
    }

    /** The steps of length one, {@code [n, out]}; none for products that no token reached. */
    private Map<Linear, Tensor> directions(Map<Linear, Tensor> slopes) {
        Map<Linear, Tensor> directions = new HashMap<>();
        Set<Tap> taps = new LinkedHashSet<>();
        products.keySet().forEach(linear -> taps.addAll(moments(linear)));
        Set<Linear> waiting = new LinkedHashSet<>(products.keySet());
        Map<Tap, HostTensor> sums = new HashMap<>();
        current().gather(rows, taps, (tap, sum) -> {
            sums.put(tap, sum);
            for (Iterator<Linear> open = waiting.iterator(); open.hasNext(); ) {
                Linear linear = open.next();
                if (sums.keySet().containsAll(moments(linear))) {
                    direction(linear, slopes.remove(linear), sums, directions);
                    open.remove();
                }
            }
            Set<Tap> needed = new HashSet<>();
            waiting.forEach(linear -> needed.addAll(moments(linear)));
            sums.keySet().retainAll(needed);
        });
        return directions;
    }

    private static List<Tap> moments(Linear linear) {
        return List.of(
                new Tap.Positions(linear.input()),
                new Tap.SecondMoment(linear.input()),
                new Tap.GradientSecondMoment(linear.output()));
    }

    private void direction(Linear linear, Tensor slope, Map<Tap, HostTensor> sums, Map<Linear, Tensor> directions) {
        Site site = products.get(linear);
        double positions =
                sums.get(new Tap.Positions(linear.input())).asFloats().get(0);
        if (positions == 0) {
            return;
        }
        Damping damping =
                new Damping(settings.damping, (long) positions, site.consumer().node(), log);
        try (Matrix a = square(sums.get(new Tap.SecondMoment(linear.input())), linear.input());
                Matrix g = square(sums.get(new Tap.GradientSecondMoment(linear.output())), linear.output());
                Matrix c = WeightStore.read(slope, site.consumer().axis());
                Matrix solved = Newton.step(a, c, g, damping);
                Matrix step = scaled(solved, positions)) {
            directions.put(linear, store.write(step, site.consumer().node()));
        }
    }

    /**
     * From sums to means per token: a row's cross-entropy is the mean over all tokens but the first, its divergence that over
     * all, and A, C and G are each to be divided by the number of positions.
     */
    private Matrix scaled(Matrix solved, double positions) {
        double length = rows.get(0).length;
        double factor = positions * length / ((length - 1) * (length - 1));
        Matrix scaled = Matrix.zeros(solved.rows(), solved.columns());
        WeightStore.add(factor, solved, scaled);
        return scaled;
    }

    private static Matrix square(HostTensor sum, Activation activation) {
        return Matrix.of(sum.asFloats(), activation.width(), activation.width());
    }

    /** Takes the step of the length where the divergence is least among those that are tried; none if it never falls. */
    private double search(Objective rows, Map<Linear, Tensor> directions, double start) {
        double least = start;
        double tried = length;
        Map<String, Tensor> best = null;
        boolean longer = true;
        for (int trial = 0; trial <= (longer ? DOUBLINGS : HALVINGS); trial++) {
            Map<String, Tensor> contents = moved(directions, tried);
            double found = mean(rows, contents);
            log.debug(String.format(Locale.ROOT, "step length %.4g: divergence %.5f", tried, found));
            if (found < least) {
                least = found;
                best = contents;
                length = tried;
            } else if (trial == 0) {
                longer = false;
            } else if (best != null) {
                break;
            }
            tried = longer ? 2 * tried : tried / 2;
        }
        if (best != null) {
            weights = best;
        }
        return least;
    }

    private Map<String, Tensor> moved(Map<Linear, Tensor> directions, double step) {
        Map<String, Tensor> moved = new HashMap<>(weights);
        directions.forEach((linear, direction) -> {
            Site site = products.get(linear);
            try (Matrix w = present(linear);
                    Matrix change = WeightStore.read(direction, 0)) {
                WeightStore.add(-step, change, w);
                moved.put(linear.weight(), site.narrow(w, store));
            }
        });
        return moved;
    }

    private Matrix present(Linear linear) {
        Site site = products.get(linear);
        Tensor tensor = weights.getOrDefault(linear.weight(), site.weight());
        return WeightStore.read(tensor, site.consumer().axis());
    }

    private Calibrator current() {
        return weights.isEmpty() ? model : model.withWeights(weights);
    }

    /** New weights of the original, zero where something is gone. */
    private Map<Value, Tensor> updates() {
        Map<Value, Tensor> updates = new HashMap<>();
        products.forEach((linear, site) -> {
            Tensor narrow = weights.get(linear.weight());
            if (narrow != null) {
                try (Matrix w = present(linear)) {
                    updates.put(site.consumer().weight(), site.isWhole() ? narrow : site.wide(w, store));
                }
            }
        });
        return updates;
    }
}
