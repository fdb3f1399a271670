// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.calibrate;

import io.onnxprune.autodiff.Backward;
import io.onnxprune.autodiff.NoDerivativeException;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.UserException;
import io.onnxprune.ir.GraphBuilder;
import io.onnxprune.ir.Model;
import io.onnxprune.ir.Program.Value;
import io.onnxprune.runtime.OnnxRuntime;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;

/** Whether a model has gradients, found from its graph alone. */
public final class Differentiability {
    /** Tokens of a row, for the branches that a run takes. */
    private static final int LENGTH = 16;

    private Differentiability() {}

    /**
     * Checks that the loss can be differentiated by {@code initializers}. A model that cannot be prepared for rows of a
     * few tokens is not checked.
     *
     * @throws NoDerivativeException when an operator on the way has no derivative
     */
    public static void require(
            Model model, Collection<String> initializers, OnnxRuntime runtime, CalibrationOptions options) {
        Calibrator calibrator;
        try {
            calibrator = Calibrator.of(model, runtime, options, LENGTH, Log.NONE);
        } catch (UserException e) {
            return; // This is told for the rows of the run.
        }
        List<Value> wanted = new ArrayList<>();
        for (String name : calibrator.parameters()) {
            if (initializers.contains(name)) {
                wanted.add(calibrator.program().initializers().get(name));
            }
        }
        GraphBuilder scratch = new GraphBuilder(
                "gradient_", GraphBuilder.names(calibrator.lowered().graph()));
        Backward.append(
                calibrator.program().ops(),
                calibrator.trace(),
                Map.of(calibrator.end(), scratch.freshName()),
                wanted,
                scratch);
    }
}
