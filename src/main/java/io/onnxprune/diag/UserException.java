// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

/**
 * A failure that the user can act on. The message is one sentence: what is wrong, where (file, node, option), what to
 * do about it. The command line prints it without a stack trace and exits with 1.
 */
public class UserException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    public UserException(String message) {
        super(message);
    }

    public UserException(String message, Throwable cause) {
        super(message, cause);
    }
}
