// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.diag.PathText;
import io.onnxprune.dims.Dimension;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.ir.Tensor;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.plan.Plan;
import io.onnxprune.plan.PlanFile;
import io.onnxprune.rewrite.NormCorrection;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Takes a plan from a file in place of making one. */
@Named(value = "apply-plan", summary = "Takes a plan from a file (docs/plan-format.md) in place of making one.")
public record ApplyPlanPass(
        @Option("The plan.") String file,

        @Option("Rescales normalisation weights when the hidden width shrinks, whose mean square changes with it.")
        boolean normCorrection)
        implements DecidingPass {
    /** The file plan.json. */
    public ApplyPlanPass() {
        this("plan.json", true);
    }

    /** The file of the plan. */
    public Path path() {
        return PathText.of(file);
    }

    private Plan read(DenseModel dense) {
        return PlanFile.read(path(), dense.structure(), dense.hash());
    }

    @Override
    public Set<Fact> provides() {
        return Set.of(Fact.PLAN, Fact.CHOICE);
    }

    @Override
    public void check(DenseModel dense, PassContext context) {
        read(dense);
    }

    @Override
    public List<Dimension> shrinking(DenseModel dense, PassContext context) {
        Set<String> named = read(dense).keep().keySet();
        return dense.structure().dimensions().stream()
                .filter(dimension -> named.contains(dimension.name()))
                .toList();
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        DenseModel dense = state.dense();
        Plan plan = read(dense);
        Map<Value, Tensor> norms =
                normCorrection ? NormCorrection.of(dense.structure(), plan.keep(dense.structure())) : Map.of();
        return state.withChoice(plan, norms);
    }
}
