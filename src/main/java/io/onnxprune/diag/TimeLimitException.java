// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

/** A failure because a part of a run took longer than its limit. */
public final class TimeLimitException extends UserException {
    private static final long serialVersionUID = 1L;

    public TimeLimitException(String message, Throwable cause) {
        super(message, cause);
    }
}
