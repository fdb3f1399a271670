// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.diag;

/** A failure for lack of memory outside the heap, of the machine or of a device. The same work in smaller parts may succeed. */
public final class OutOfMemoryException extends UserException {
    private static final long serialVersionUID = 1L;

    public OutOfMemoryException(String message) {
        super(message);
    }

    public OutOfMemoryException(String message, Throwable cause) {
        super(message, cause);
    }
}
