// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

/** A place where the text form of a model is not what {@link GraphParser} reads. The message says where and what is wrong. */
public final class GraphSyntaxException extends RuntimeException {
    private static final long serialVersionUID = 1L;

    private final int line;
    private final int column;

    GraphSyntaxException(int line, int column, String expected, String found) {
        super("line %d, column %d: expected %s, found %s".formatted(line, column, expected, found));
        this.line = line;
        this.column = column;
    }

    /** The line of the place, from 1 on. */
    public int line() {
        return line;
    }

    /** The column of the place, from 1 on. */
    public int column() {
        return column;
    }
}
