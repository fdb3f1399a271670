// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.latency;

/**
 * The shape of a matrix product {@code [batch, rows, inner] x [batch, inner, columns]}.
 *
 * @param batch number of products of activations; 1 for a product with weights
 * @param operand what the second operand is
 */
record ProductShape(long batch, long rows, long inner, long columns, Operand operand) {
    /** The form of weights, by what multiplies with them. */
    enum Form {
        /** Both operands are activations. */
        ACTIVATIONS,
        /** Both operands are activations, and a softmax over the columns follows. */
        SCORES,
        /** A constant matrix. */
        MATRIX,
        /** Integers of few bits in blocks, as MatMulNBits (com.microsoft) takes them. */
        BLOCKS
    }

    /**
     * The second operand.
     *
     * @param half whether numbers are float16, not float32
     * @param bits of each integer of blocks; 0 for others
     * @param block integers in a block; 0 for others
     * @param accuracy the level of accuracy that the operator is allowed; 0 for others
     */
    record Operand(Form form, boolean half, int bits, int block, int accuracy) {
        static Operand of(Form form, boolean half) {
            return new Operand(form, half, 0, 0, 0);
        }
    }

    /** The sizes that can shrink: of the batch, of the sum, and of the columns. */
    long[] sizes() {
        return new long[] {batch, inner, columns};
    }

    /** This shape with other {@link #sizes}. */
    ProductShape with(long... sizes) {
        return new ProductShape(sizes[0], rows, sizes[1], sizes[2], operand);
    }

    /** Whether both operands are activations. */
    boolean isOfActivations() {
        return operand.form == Form.ACTIVATIONS || operand.form == Form.SCORES;
    }

    /** Multiplications. */
    double work() {
        return (double) batch * rows * inner * columns;
    }

    /** One line without spaces at its ends, which differs between shapes. */
    String key() {
        return String.join(
                " ",
                operand.form.name(),
                operand.half ? "f16" : "f32",
                operand.bits + "/" + operand.block + "/" + operand.accuracy,
                batch + "x" + rows + "x" + inner + "x" + columns);
    }
}
