// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

import java.util.Objects;
import org.jspecify.annotations.NullMarked;

/**
 * A failure that the user can correct. The message is one sentence: the problem, its place (file, node, option) and
 * the remedy. The command line prints it without a stack trace and exits with 1.
 */
@NullMarked
public class UserException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    public UserException(String message) {
        super(message);
    }

    public UserException(String message, Throwable cause) {
        super(message, cause);
    }

    @Override
    public String getMessage() {
        return Objects.requireNonNullElse(super.getMessage(), "");
    }
}
