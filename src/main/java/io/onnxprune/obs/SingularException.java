// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.obs;

/**
 * A second moment is not positive definite with the current damping. {@link Damping#raise} catches this and tries more.
 */
final class SingularException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    SingularException() {
        super("not positive definite", null, false, false);
    }
}
