// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.diag.UserException;

/** An operator that a gradient would have to go through has no derivative, or none that is known. */
public final class NoDerivativeException extends UserException {
    private static final long serialVersionUID = 1L;

    private final String problem;

    /** {@code problem} names the node. */
    NoDerivativeException(String problem) {
        super(problem + "; choose a method that needs no gradients, such as --method magnitude");
        this.problem = problem;
    }

    /** What the matter is, without what to do about it. */
    public String problem() {
        return problem;
    }
}
