// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.option.Named;
import io.onnxprune.plan.ActivationImportance.Kind;

/** Weights times the fluctuation of inputs (FLAP, arXiv 2312.11983). */
@Named(
        value = "flap",
        summary = "weights times the fluctuation of the inputs of the linear layers that sum over a unit")
public record FlapMetric() implements ActivationMetric {
    @Override
    public Kind kind() {
        return Kind.FLAP;
    }
}
