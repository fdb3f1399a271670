// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.compensate.BasisChange;
import io.onnxprune.compensate.ObsImportance.Curvature;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UsageException;
import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Dimension;
import io.onnxprune.dims.Role;
import io.onnxprune.method.MeasuredStates;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.pass.ReportEntry;
import io.onnxprune.plan.BasisMembers;
import io.onnxprune.plan.BasisMembers.Member;
import io.onnxprune.plan.PruneSet;
import io.onnxprune.rewrite.StreamRotation;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Orders the units of dimensions that are about to be pruned by a change of basis. */
@Named(
        value = "rotate",
        summary =
                "Changes the basis of dimensions that later passes prune, so that few units carry most of what a dimension does. The"
                        + " model computes the same. Dimensions whose units pass an operator that treats them one by one keep"
                        + " their basis, with a warning; the hidden width must not.")
public record RotatePass(
        @Option("The dimensions, such as v_head_dim; or hidden alone, for the residual stream.")
        PruneSet dimensions,

        @Option("The cost of an error: its square at the output of the linear layer, or its effect on the loss.")
        Curvature curvature,

        @Option("Added to the diagonal of second moments, as a share of its mean.")
        double damping)
        implements Pass {
    /** The size of value heads, by the effect on the loss. */
    public RotatePass() {
        this(PruneSet.parse(List.of("v_head_dim")), Curvature.LOSS, 0.01);
    }

    public RotatePass {
        if (dimensions.layers() || dimensions.blocks()) {
            throw new UsageException("rotate changes the basis of dimensions; layers and blocks have none");
        }
        if (dimensions.roles().contains(Role.HIDDEN) && dimensions.roles().size() > 1) {
            throw new UsageException(
                    "pass rotate changes the hidden width alone; give other dimensions another pass behind it");
        }
    }

    @Override
    public Set<Fact> requires() {
        return Set.of(Fact.ROWS);
    }

    @Override
    public Effect effect() {
        return Effect.CHANGES_MODEL;
    }

    /** Whether nothing that this pass is for is among what a recipe prunes. */
    public boolean isIdle(List<PruneSet> pruned) {
        return pruned.stream().allMatch(prune -> Collections.disjoint(prune.roles(), dimensions.roles()));
    }

    /** Whether the residual stream changes, and with it the dense model. */
    private boolean ofStream() {
        return dimensions.roles().contains(Role.HIDDEN);
    }

    /** A dense model is in no checkpoint. */
    @Override
    public boolean isRepeatedOnResume() {
        return ofStream();
    }

    @Override
    public boolean differentiates() {
        return curvature == Curvature.LOSS;
    }

    /** The dimensions that the next pass with a plan may shrink and that this pass is for. */
    private List<Dimension> wanted(DenseModel dense, PassContext context) {
        return context.position().later().stream()
                .filter(DecidingPass.class::isInstance)
                .map(DecidingPass.class::cast)
                .flatMap(pass -> pass.shrinking(dense, context).stream())
                .distinct()
                .filter(dimension -> dimensions.roles().contains(dimension.role()) && dimension.isPrunable())
                .toList();
    }

    @Override
    public void check(DenseModel dense, PassContext context) {
        int here = context.position().index();
        boolean late = context.position().all().subList(0, here).stream().anyMatch(DecidingPass.class::isInstance);
        if (late) {
            throw new UserException("pass rotate must come before the passes that choose what to prune");
        }
        if (ofStream() && !wanted(dense, context).isEmpty()) {
            checkStream(dense, context);
        }
    }

    private static void checkStream(DenseModel dense, PassContext context) {
        int here = context.position().index();
        if (context.position().all().subList(0, here).stream()
                .anyMatch(pass -> pass.effect() == Effect.CHANGES_MODEL)) {
            throw new UsageException(
                    "rotating the hidden width changes the dense model; put it before all passes that change weights");
        }
        StreamRotation.check(dense.structure());
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        List<Dimension> wanted = wanted(state.dense(), context);
        if (wanted.isEmpty()) {
            return state;
        }
        if (ofStream()) {
            return StreamToComponents.run(state, curvature == Curvature.LOSS, context);
        }
        BasisChange change = new BasisChange(
                MeasuredStates.of(state.pruned(), state, context), curvature == Curvature.LOSS, damping);
        Map<Dimension, List<Member>> members = members(wanted, state.dense(), change, context.log());
        if (members.isEmpty()) {
            return state;
        }
        return state.withWeights(change.of(members))
                .with(ReportEntry.of(
                        "rotated",
                        "the units of " + members.size() + " dimensions are in a basis that orders them",
                        members.size()));
    }

    /** The constants that change with each dimension. One whose basis cannot change is left out, with a warning. */
    private static Map<Dimension, List<Member>> members(
            List<Dimension> wanted, DenseModel dense, BasisChange change, Log log) {
        Map<Dimension, List<Member>> changes = new LinkedHashMap<>();
        Map<String, String> kept = new LinkedHashMap<>();
        for (Dimension dimension : wanted) {
            BasisMembers found = BasisMembers.of(dense.structure().analysis(), dimension, dense.layers());
            found.obstacle()
                    .or(() -> change.obstacle(found.members()))
                    .ifPresentOrElse(
                            reason -> kept.put(dimension.name(), reason),
                            () -> changes.put(dimension, found.members()));
        }
        kept.entrySet().stream()
                .findFirst()
                .ifPresent(first -> log.warn(kept.size()
                        + " dimensions keep their basis, and their units are pruned as they are: " + first.getKey()
                        + ", "
                        + first.getValue()));
        return changes;
    }
}
