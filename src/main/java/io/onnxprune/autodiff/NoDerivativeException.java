// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.autodiff;

import io.onnxprune.diag.UserException;

/** An operator through which a gradient must pass has no known derivative. */
public final class NoDerivativeException extends UserException {
    private static final long serialVersionUID = 1L;

    private final String problem;

    /**
     * Creates the exception.
     *
     * @param problem the missing derivative and its node
     */
    NoDerivativeException(String problem) {
        super(problem + "; choose a method that needs no gradients, such as --method magnitude");
        this.problem = problem;
    }

    /** The problem without the remedy. */
    public String problem() {
        return problem;
    }
}
