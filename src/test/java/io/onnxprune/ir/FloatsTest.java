// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import java.math.BigDecimal;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.aggregator.ArgumentsAccessor;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.EnumSource;

class FloatsTest {
    @ParameterizedTest
    @EnumSource(names = {"FLOAT16", "BFLOAT16"})
    void everyHalfSurvivesDecodingAndEncoding(DType dtype) {
        for (int bits = 0; bits < 1 << 16; bits++) {
            float value = decode(dtype, bits);
            int again = encode(dtype, value);
            if (Float.isNaN(value)) {
                assertThat(decode(dtype, again)).as("bits %x", bits).isNaN();
            } else {
                assertThat(again).as("bits %x", bits).isEqualTo(bits);
            }
        }
    }

    @ParameterizedTest
    @CsvSource({
        "3c00, 1", "c000, -2", "7bff, 65504", "0400, 6.103515625e-5", "0001, 5.9604644775390625e-8",
        "03ff, 6.097555160522461e-5", "3555, 0.333251953125", "7c00, Infinity", "fc00, -Infinity", "8000, -0.0"
    })
    void halvesHaveTheValuesOfTheStandard(String bits, float value) {
        assertThat(decode(DType.FLOAT16, Integer.parseInt(bits, 16))).isEqualTo(value);
    }

    /** Compared with the nearest half in exact arithmetic, the even one of two at equal distance. */
    @ParameterizedTest
    @EnumSource(names = {"FLOAT16", "BFLOAT16"})
    void encodingRoundsToNearestEven(DType dtype) {
        Random random = new Random(17);
        int largest = dtype == DType.FLOAT16 ? 0x7bff : 0x7f7f;
        for (int round = 0; round < 50_000; round++) {
            int below = random.nextInt(largest);
            float low = decode(dtype, below);
            float high = decode(dtype, below + 1);
            float middle = (float) (((double) low + high) / 2);
            float value = switch (round % 4) {
                case 0 -> middle;
                case 1 -> Math.nextUp(middle);
                case 2 -> Math.nextDown(middle);
                default -> (float) (low + random.nextDouble() * ((double) high - low));
            };
            int nearest = nearest(below, exact(value), exact(low), exact(high));

            assertThat(encode(dtype, value)).as("%s of %s", dtype, value).isEqualTo(nearest);
            assertThat(encode(dtype, -value)).as("%s of -%s", dtype, value).isEqualTo(nearest | 0x8000);
        }
    }

    private static BigDecimal exact(float value) {
        return new BigDecimal(value);
    }

    private static int nearest(int below, BigDecimal value, BigDecimal low, BigDecimal high) {
        int side = value.subtract(low).compareTo(high.subtract(value));
        return side < 0 ? below : side > 0 ? below + 1 : below + (below & 1);
    }

    @Test
    void tooLargeValuesBecomeInfinite() {
        assertThat(encode(DType.FLOAT16, 65519.996f)).isEqualTo(0x7bff);
        assertThat(encode(DType.FLOAT16, 65520f)).isEqualTo(0x7c00);
        assertThat(encode(DType.FLOAT16, -1e30f)).isEqualTo(0xfc00);
        assertThat(encode(DType.BFLOAT16, Float.MAX_VALUE)).isEqualTo(0x7f80);
        assertThat(encode(DType.BFLOAT16, Float.NEGATIVE_INFINITY)).isEqualTo(0xff80);
    }

    @Test
    void tooSmallValuesBecomeSignedZero() {
        assertThat(encode(DType.FLOAT16, 0x1p-25f)).isZero();
        assertThat(encode(DType.FLOAT16, Math.nextUp(0x1p-25f))).isEqualTo(1);
        assertThat(encode(DType.FLOAT16, -1e-20f)).isEqualTo(0x8000);
    }

    @Test
    void nanStaysNan() {
        for (int payload : new int[] {0x7fc00000, 0x7f800001, 0xffffffff, 0x7fbfffff}) {
            float value = Float.intBitsToFloat(payload);
            assertThat(decode(DType.FLOAT16, encode(DType.FLOAT16, value))).isNaN();
            assertThat(decode(DType.BFLOAT16, encode(DType.BFLOAT16, value))).isNaN();
        }
    }

    @Test
    void floatsAndDoublesPassUnchanged() {
        float[] values = {1.1f, -0f, Float.MIN_VALUE, Float.MAX_VALUE};
        assertThat(Tensor.ofFloats(DType.FLOAT, new long[] {4}, values).toFloats())
                .containsExactly(values);
        assertThat(Tensor.ofFloats(DType.DOUBLE, new long[] {4}, values).toFloats())
                .containsExactly(values);
    }

    @Test
    void integersAreRejected() {
        assertThatThrownBy(() -> Tensor.ofFloats(DType.INT32, new long[] {1}, 1f))
                .isInstanceOf(IllegalArgumentException.class);
    }

    /** The tensor is larger than one block, and its rows do not divide a block. */
    @Test
    void blocksCoverATensorInOrder() {
        int rows = 700;
        int width = 999;
        float[] values = new float[rows * width];
        for (int i = 0; i < values.length; i++) {
            values[i] = i % 2039;
        }
        Tensor tensor = Tensor.ofFloats(DType.FLOAT16, new long[] {rows, width}, values);
        float[] seen = new float[values.length];
        long[] next = {0};
        int[] blocks = {0};
        Floats.forEachBlock(tensor, (first, block, count) -> {
            assertThat(first).isEqualTo(next[0]);
            assertThat(count % width).as("whole rows").isZero();
            System.arraycopy(block, 0, seen, Math.toIntExact(first), count);
            next[0] += count;
            blocks[0]++;
        });

        assertThat(seen).isEqualTo(values);
        assertThat(blocks[0]).isGreaterThan(1);
    }

    /** Zero, the smallest number, the first normal one, 1 or near it, the largest, and their negatives, as ml_dtypes has them. */
    @ParameterizedTest
    @CsvSource({
        "FLOAT8E4M3FN, 0, 0.001953125, 0.015625, 1.0, 24.0, 448.0, -0.0, -1.125, -448.0",
        "FLOAT8E4M3FNUZ, 0, 0.0009765625, 0.0078125, 0.5, 12.0, 224.0, NaN, -0.5625, -224.0",
        "FLOAT8E5M2, 0, 1.52587890625e-05, 0.0001220703125, 0.5, 256.0, NaN, -0.0, -0.625, NaN",
        "FLOAT8E5M2FNUZ, 0, 7.62939453125e-06, 6.103515625e-05, 0.25, 128.0, 49152.0, NaN, -0.3125, -49152.0",
        "FLOAT8E8M0, 5.877471754111438e-39, 1.1754943508222875e-38, 1.504632769052528e-36, 4.235164736271502e-22,"
                + " 2.9103830456733704e-11, 0.5, 2.0, 2.8823037615171174e+17, 1.7014118346046923e+38"
    })
    void floatsOfEightBits(ArgumentsAccessor row) {
        int[] codes = {0x00, 0x01, 0x08, 0x38, 0x5c, 0x7e, 0x80, 0xb9, 0xfe};
        for (int i = 0; i < codes.length; i++) {
            assertThat(decode(row.get(0, DType.class), codes[i])).isEqualTo(row.getFloat(i + 1));
        }
    }

    @Test
    void elementsOfLessThanAByte() {
        byte[] bytes = {(byte) 0x10, (byte) 0x32, (byte) 0x98, (byte) 0xfe};
        long[] shape = {8};

        assertThat(Tensor.of(DType.UINT4, shape, Bytes.of(ByteBuffer.wrap(bytes)))
                        .toFloats())
                .containsExactly(0, 1, 2, 3, 8, 9, 14, 15);
        Tensor signed = Tensor.of(DType.INT4, shape, Bytes.of(ByteBuffer.wrap(bytes)));
        assertThat(signed.toFloats()).containsExactly(0, 1, 2, 3, -8, -7, -2, -1);
        assertThat(signed.toLongs()).containsExactly(0, 1, 2, 3, -8, -7, -2, -1);
        assertThat(Tensor.of(DType.FLOAT4E2M1, shape, Bytes.of(ByteBuffer.wrap(bytes)))
                        .toFloats())
                .containsExactly(0f, 0.5f, 1f, 1.5f, -0f, -0.5f, -4f, -6f);
        float[] read = new float[8];
        Floats.forEachBlock(signed, (first, block, count) -> System.arraycopy(block, 0, read, (int) first, count));
        assertThat(read).containsExactly(0, 1, 2, 3, -8, -7, -2, -1);
    }

    private static float decode(DType dtype, int bits) {
        ByteBuffer buffer =
                ByteBuffer.allocate(2).order(ByteOrder.LITTLE_ENDIAN).putShort(0, (short) bits);
        float[] value = new float[1];
        Floats.decode(dtype, buffer, value, 1);
        return value[0];
    }

    private static int encode(DType dtype, float value) {
        ByteBuffer buffer = ByteBuffer.allocate(2).order(ByteOrder.LITTLE_ENDIAN);
        Floats.encode(dtype, new float[] {value}, 1, buffer);
        return Short.toUnsignedInt(buffer.getShort(0));
    }
}
