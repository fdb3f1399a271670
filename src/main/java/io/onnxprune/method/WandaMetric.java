// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.method;

import io.onnxprune.option.Named;
import io.onnxprune.plan.ActivationImportance.Kind;

/** Weights times the size of inputs, in structured form (Wanda, arXiv 2306.11695). */
@Named(value = "wanda", summary = "weights times the size of the inputs of the linear layers that sum over a unit")
public record WandaMetric() implements ActivationMetric {
    @Override
    public Kind kind() {
        return Kind.WANDA;
    }
}
