// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

/** A second moment was not positive definite with the damping that was tried; {@link Damping#raise} tries more. */
final class SingularException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    SingularException() {
        super("not positive definite", null, false, false);
    }
}
