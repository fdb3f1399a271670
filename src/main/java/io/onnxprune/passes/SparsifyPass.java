// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.compensate.Sparsification.Zeros;
import io.onnxprune.method.SparseGptSparsifier;
import io.onnxprune.method.Sparsifier;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.Cost;
import io.onnxprune.pass.CostModel;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.pass.ReportEntry;
import io.onnxprune.pass.Scheduled;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Set;

/** Makes weights zero in place. */
@Named(
        value = "sparsify",
        summary =
                "Makes weights of the linear layers in residual blocks zero. Shapes stay, and with them the size of the file and the"
                        + " speed of a runtime that does not look for zeros.")
public record SparsifyPass(@Option("How zeros are chosen.") Sparsifier by) implements Pass {
    /** SparseGPT. */
    public SparsifyPass() {
        this(new SparseGptSparsifier());
    }

    /** Whether it is to make no weight zero, so that nothing need be measured. */
    public boolean isNothing() {
        return by.isNothing();
    }

    @Override
    public Set<Fact> requires() {
        return Set.of(Fact.ROWS);
    }

    @Override
    public Effect effect() {
        return Effect.CHANGES_MODEL;
    }

    @Override
    public boolean solves() {
        return true;
    }

    @Override
    public Moments moments() {
        return by.moments();
    }

    @Override
    public Cost cost(CostModel model) {
        return by.cost(model);
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        Scheduled here = context.position().current();
        if (here.steps() > 1) {
            context.log().info(String.format(Locale.ROOT, "making up to %.1f %% of the zeros", 100 * here.part(1)));
        }
        Sparsifier.Result result = by.sparsify(state, context);
        return state.withWeights(result.updates()).with(entry(result.zeros()));
    }

    private static ReportEntry entry(Zeros zeros) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("matrices", zeros.matrices());
        json.put("weights", zeros.weights());
        json.put("zeros", zeros.zeros());
        return ReportEntry.of(
                "zeros",
                String.format(
                        Locale.ROOT,
                        "%.2f %% of the %,d weights of %d matrices are zero; the file size does not change, and speed only where a"
                                + " runtime looks for zeros",
                        100 * zeros.share(),
                        zeros.weights(),
                        zeros.matrices()),
                json);
    }
}
