// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.passes;

import io.onnxprune.diag.UsageException;
import io.onnxprune.emit.Emitter;
import io.onnxprune.option.Named;
import io.onnxprune.pass.DenseModel;
import io.onnxprune.pass.Fact;
import io.onnxprune.pass.Pass;
import io.onnxprune.pass.PassContext;
import io.onnxprune.pass.PruningState;
import io.onnxprune.pass.PruningState.Output;
import io.onnxprune.pass.RunSettings;
import java.util.Optional;
import java.util.Set;

/** Writes the pruned model under a temporary name; it gets its own name when all passes are done. */
@Named(
        value = "emit",
        summary =
                "Writes the pruned model, in a folder with everything that serves it. The files get their names when all passes are"
                        + " done.")
public record EmitPass() implements Pass {
    @Override
    public Set<Fact> requires() {
        return Set.of(Fact.REWRITTEN);
    }

    @Override
    public Set<Fact> provides() {
        return Set.of(Fact.EMITTED);
    }

    @Override
    public void check(DenseModel dense, PassContext context) {
        if (context.settings().output().isEmpty()) {
            throw new UsageException("pass emit has no output to write to; name one, or leave the pass out");
        }
    }

    @Override
    public PruningState run(PruningState state, PassContext context) {
        RunSettings.Output output = context.settings().output().orElseThrow();
        Emitter.Staged staged = Emitter.stage(
                new Emitter.Request(
                        state.output().model().orElseThrow(),
                        state.dense().structure(),
                        state.plan(),
                        context.settings().input(),
                        output.target(),
                        output.externalData()),
                new SlicedAdapters(state, context.log())
                        .write(output.target().adapters(context.settings().input())),
                context.log());
        return state.withOutput(new Output(state.output().model(), Optional.of(staged)));
    }
}
