// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.diag.UserException;
import io.onnxprune.dims.Role;
import io.onnxprune.option.Named;
import io.onnxprune.option.Option;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.pass.ReportEntry;
import io.onnxprune.rewrite.MaskedModel;
import io.onnxprune.runtime.OnnxRuntime;
import io.onnxprune.verify.Verifier;
import io.onnxprune.verify.Verifier.Verification;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;

/** Opens the emitted file and compares it with the dense model in which everything that was pruned is zero. */
@Named(
        value = "verify",
        summary = "Compares the emitted file with the dense model in which everything that was pruned is zero.")
public record VerifyPass(
        @Option("Largest difference, relative to the scale of the logits.")
        double tolerance) implements Pass {
    /** Ten times the rounding of float32. */
    public VerifyPass() {
        this(1e-4);
    }

    @Override
    public Set<Fact> requires() {
        return Set.of(Fact.EMITTED);
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        Path file = state.output().file().orElseThrow().model();
        open(file, context);
        Verification found = Verifier.compare(
                new Verifier.Masked(
                        state.dense().structure(),
                        state.plan(),
                        state.pruned().updates(),
                        context.settings().output().orElseThrow().lastLogits()),
                file,
                context.runtime(),
                tolerance,
                context.settings().seed());
        if (!Double.isFinite(found.scale())) {
            throw new UserException("the logits of the model are not finite numbers, so the result cannot be compared:"
                    + " weights hold NaN or infinite values, or overflow; repair them, or add --no-verify");
        }
        if (!(found.relative() <= tolerance)) {
            throw new UserException(String.format(
                    "verification failed: logits of the pruned model differ by %.3g of their scale from the original"
                            + " with the removed parts zeroed (tolerance %.0e); nothing was written, please report"
                            + " this model",
                    found.relative(), tolerance));
        }
        Set<Role> averaged = MaskedModel.averagedOverKept(state.dense().structure(), state.plan());
        return state.with(entry(found, averaged));
    }

    /**
     * A fresh session opens the file, as a user's would: without optimisation, which costs least, or else with it, since some
     * graphs load only then. Where the dense model does not load either (a provider without bfloat16 kernels, a defect of the
     * runtime), that is no fault of the result.
     */
    private static void open(Path file, PassContext context) {
        Optional<UserException> failure = failureToOpen(file, context.runtime());
        if (failure.isPresent()) {
            if (failureToOpen(context.settings().input().model(), context.runtime())
                    .isEmpty()) {
                throw failure.get();
            }
            context.log()
                    .warn("this runtime loads neither the original nor the result as they are, so they are compared in"
                            + " float32: " + failure.get().getMessage());
        }
    }

    private static Optional<UserException> failureToOpen(Path file, OnnxRuntime runtime) {
        Optional<UserException> failure = Optional.empty();
        for (boolean optimize : new boolean[] {false, true}) {
            try {
                runtime.open(file, optimize).close();
                return Optional.empty();
            } catch (UserException e) {
                failure = Optional.of(e);
            }
        }
        return failure;
    }

    private static ReportEntry entry(Verification found, Set<Role> averaged) {
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("max_abs_diff", found.maxAbsDiff());
        json.put(
                "decode_max_abs_diff",
                found.decodeMaxAbsDiff().isPresent() ? found.decodeMaxAbsDiff().getAsDouble() : null);
        json.put("logit_scale", found.scale());
        json.put("tokens", found.tokens());
        String decode = found.decodeMaxAbsDiff().isPresent()
                ? String.format(
                        Locale.ROOT,
                        ", cached decode step %.2g",
                        found.decodeMaxAbsDiff().getAsDouble())
                : "";
        String norms = averaged.isEmpty()
                ? ""
                : averaged.stream().map(Role::title).collect(Collectors.joining(" and ", "; norms over ", ""))
                        + " average over the kept ones in both, so zeros in the dense model give other numbers";
        return ReportEntry.of(
                "verification",
                String.format(
                        Locale.ROOT,
                        "verified on %d tokens against the dense model with the pruned parts zeroed: largest difference %.2g%s"
                                + " (outputs up to %.1f)%s",
                        found.tokens(),
                        found.maxAbsDiff(),
                        decode,
                        found.scale(),
                        norms),
                json);
    }
}
