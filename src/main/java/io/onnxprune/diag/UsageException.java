// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

/** A wrong command line or recipe. It is reported like any {@link UserException}, but the exit code is 2. */
public final class UsageException extends UserException {
    private static final long serialVersionUID = 1L;

    public UsageException(String message) {
        super(message);
    }
}
