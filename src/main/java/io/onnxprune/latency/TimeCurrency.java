// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.latency;

import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dim;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Structure;
import io.onnxprune.eval.Workload;
import io.onnxprune.plan.Currency;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.function.ToDoubleFunction;
import org.jspecify.annotations.Nullable;

/**
 * Seconds of a workload. A pruned model takes the time of the dense model, without what its products take less: the sum of
 * {@code factor} times the differences of the times of single products.
 *
 * @param work the workload
 * @param table times of single products; null before anything is measured
 * @param dense seconds of the dense model
 * @param factor the saved time of a whole model relative to that of its products alone
 */
record TimeCurrency(Workload work, @Nullable TimeTable table, double dense, double factor) implements Currency {
    /** A currency that only names the workload. */
    static TimeCurrency unmeasured(Workload work) {
        return new TimeCurrency(work, null, 0, 1);
    }

    @Override
    public String unit() {
        return "ms";
    }

    @Override
    public String number(double amount) {
        double milliseconds = 1e3 * amount;
        return String.format(
                Locale.ROOT, milliseconds < 10 ? "%.3f" : milliseconds < 100 ? "%.2f" : "%.1f", milliseconds);
    }

    @Override
    public boolean isLimit() {
        return true;
    }

    @Override
    public boolean hasPlateaus() {
        return true;
    }

    /** Products, and the rest of the model, which stays. */
    @Override
    public List<Part> parts(Structure structure) {
        TimeTable times = table;
        if (times == null) {
            throw new IllegalStateException("nothing has been timed");
        }
        List<Part> parts = new ArrayList<>();
        double rest = dense;
        for (Product product : Products.of(structure, work)) {
            ProductShape full = product.full();
            ToDoubleFunction<ToDoubleFunction<Dim.Atom>> cost =
                    units -> factor * times.seconds(full, product.sizes(units));
            rest -= cost.applyAsDouble(atom -> atom.size(0));
            parts.add(new Part(product.op().output(0), product.weight(), product.variables(), cost));
        }
        if (parts.isEmpty()) {
            throw new UserException(structure.analysis().program().model().source()
                    + " has no matrix products whose time is known, so no time can be a target; ask for a ratio");
        }
        double others = rest;
        parts.add(new Part(null, null, Set.of(), units -> others));
        return parts;
    }

    @Override
    public double amount(double parameters, double bytes, double other) {
        return other;
    }

    /** Widths are cut to what is timed. Heads are few, so their times are interpolated where they lie between. */
    @Override
    public int multiple(Structure structure, Dimension dimension) {
        return switch (dimension.role()) {
            case FFN, MIXER, SIDE, HIDDEN, LATENT -> {
                int channels = Math.max(1, structure.analysis().channels(dimension.atom()));
                long step = TimeTable.step((long) dimension.size() * channels);
                yield (int) Math.max(1, step / channels);
            }
            case HEADS, KV_HEADS, QUERY_HEADS, QK_HEAD_DIM, V_HEAD_DIM, EXPERTS, VOCABULARY, OTHER -> 1;
        };
    }
}
