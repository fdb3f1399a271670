// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.stream.IntStream;
import java.util.stream.LongStream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

class SlicingTest {
    private static final List<DType> TYPES = Arrays.stream(DType.values())
            .filter(type -> type.bits() >= 8 && type.bits() <= 64)
            .toList();

    /** Random tensors, kept indices and ranges, compared with an element-wise copy. */
    @ParameterizedTest
    @ValueSource(longs = {1, 2, 3, 4})
    void aSliceHasTheBytesOfTheKeptElements(long seed) {
        Random random = new Random(seed);
        for (int round = 0; round < 300; round++) {
            DType dtype = TYPES.get(round % TYPES.size());
            long[] shape = LongStream.generate(() -> 1 + random.nextInt(9))
                    .limit(1 + random.nextInt(4))
                    .toArray();
            Tensor tensor = random(random, dtype, shape);
            int[][] kept = new int[shape.length][];
            for (int axis = 0; axis < kept.length; axis++) {
                kept[axis] = random.nextInt(3) == 0 ? null : subset(random, (int) shape[axis]);
            }
            byte[] expected = naive(tensor, kept);

            Tensor sliced = Slicing.slice(tensor, kept);
            String what = "seed " + seed + " round " + round + ": " + tensor + " at " + Arrays.deepToString(kept);
            assertThat(sliced.dtype()).isEqualTo(dtype);
            assertThat(sliced.bytes().toArray()).as(what).isEqualTo(expected);
            for (int range = 0; range < 4; range++) {
                int from = random.nextInt(expected.length);
                int count = random.nextInt(expected.length - from + 1);
                ByteBuffer target = ByteBuffer.allocate(count);
                sliced.bytes().read(from, target);
                assertThat(target.array())
                        .as(what + ", bytes from " + from)
                        .isEqualTo(Arrays.copyOfRange(expected, from, from + count));
            }
        }
    }

    @Test
    void aSliceOfASliceIsTheSliceOfTheComposedIndices() {
        Random random = new Random(9);
        for (int round = 0; round < 100; round++) {
            Tensor tensor = random(random, DType.FLOAT16, new long[] {7, 6, 5});
            int[][] first = {subset(random, 7), subset(random, 6), null};
            int[][] second = {
                subset(random, first[0].length), null, subset(random, 5),
            };
            int[][] both = {
                Arrays.stream(second[0]).map(index -> first[0][index]).toArray(), first[1], second[2],
            };

            assertThat(Slicing.slice(Slicing.slice(tensor, first), second)
                            .bytes()
                            .toArray())
                    .isEqualTo(Slicing.slice(tensor, both).bytes().toArray());
        }
    }

    /** A tensor of several blocks, read from a file. */
    @Test
    void largeTensorsAreReadByBlocks(@TempDir Path folder) throws IOException {
        Random random = new Random(3);
        long[] shape = {300, 40, 211};
        byte[] content = new byte[Math.toIntExact(4 * Tensor.elements(shape))];
        random.nextBytes(content);
        Path file = Files.write(folder.resolve("weights"), content);
        Tensor tensor = Tensor.of(DType.FLOAT, shape, Bytes.of(file, 0, content.length));
        int[][] kept = {subset(random, 300), subset(random, 40), subset(random, 211)};
        byte[] expected = naive(tensor, kept);

        Bytes sliced = Slicing.slice(tensor, kept).bytes();
        assertThat(Arrays.equals(sliced.toArray(), expected)).isTrue();
        for (int round = 0; round < 20; round++) {
            int from = random.nextInt(expected.length);
            ByteBuffer target = ByteBuffer.allocate(random.nextInt(expected.length - from));
            sliced.read(from, target);
            assertThat(Arrays.equals(target.array(), Arrays.copyOfRange(expected, from, from + target.capacity())))
                    .isTrue();
        }
    }

    @Test
    void keepingAllIndicesReturnsTheTensor() {
        Tensor tensor = random(new Random(1), DType.FLOAT, new long[] {3, 4});

        assertThat(Slicing.slice(tensor, new int[2][])).isSameAs(tensor);
        assertThat(Slicing.slice(tensor, new int[][] {{0, 1, 2}, null})).isSameAs(tensor);
    }

    /** Elements of less than a byte, compared with a slice of the same elements in whole bytes. */
    @ParameterizedTest
    @EnumSource(names = {"INT4", "UINT4", "UINT2", "FLOAT4E2M1"})
    void aSliceOfPackedElementsHasTheKeptElements(DType dtype) {
        Random random = new Random(7);
        for (int round = 0; round < 100; round++) {
            long[] shape = {1 + random.nextInt(7), 1 + random.nextInt(7)};
            Tensor packed = random(random, dtype, shape);
            Tensor whole = Tensor.of(DType.UINT8, shape, Bytes.of(ByteBuffer.wrap(elements(packed))));
            int[][] kept = {subset(random, (int) shape[0]), random.nextBoolean() ? null : subset(random, (int) shape[1])
            };

            Tensor sliced = Slicing.slice(packed, kept);

            assertThat(sliced.dtype()).isEqualTo(dtype);
            assertThat(elements(sliced))
                    .as(packed + " at " + Arrays.deepToString(kept))
                    .isEqualTo(Slicing.slice(whole, kept).bytes().toArray());
            byte[] all = sliced.bytes().toArray();
            ByteBuffer last = ByteBuffer.allocate(all.length / 2);
            sliced.bytes().read(all.length - all.length / 2, last);
            assertThat(last.array()).isEqualTo(Arrays.copyOfRange(all, all.length - all.length / 2, all.length));
        }
    }

    private static byte[] elements(Tensor packed) {
        byte[] bytes = packed.bytes().toArray();
        byte[] elements = new byte[(int) packed.elements()];
        int bits = packed.dtype().bits();
        for (int i = 0; i < elements.length; i++) {
            elements[i] = (byte) (bytes[i * bits / 8] >> i * bits % 8 & (1 << bits) - 1);
        }
        return elements;
    }

    private static Tensor random(Random random, DType dtype, long[] shape) {
        byte[] content = new byte[Math.toIntExact(dtype.bytes(Tensor.elements(shape)))];
        random.nextBytes(content);
        return Tensor.of(dtype, shape, Bytes.of(ByteBuffer.wrap(content)));
    }

    private static int[] subset(Random random, int size) {
        int[] kept =
                IntStream.range(0, size).filter(index -> random.nextBoolean()).toArray();
        return kept.length == 0 ? new int[] {random.nextInt(size)} : kept;
    }

    private static byte[] naive(Tensor tensor, int[][] kept) {
        int[][] indices = new int[tensor.rank()][];
        int count = 1;
        for (int axis = 0; axis < indices.length; axis++) {
            indices[axis] = kept[axis] != null
                    ? kept[axis]
                    : IntStream.range(0, (int) tensor.dim(axis)).toArray();
            count *= indices[axis].length;
        }
        int width = tensor.dtype().bits() / 8;
        byte[] source = tensor.bytes().toArray();
        byte[] result = new byte[count * width];
        for (int element = 0; element < count; element++) {
            int from = 0;
            int stride = 1;
            int rest = element;
            for (int axis = indices.length - 1; axis >= 0; axis--) {
                from += indices[axis][rest % indices[axis].length] * stride;
                rest /= indices[axis].length;
                stride *= (int) tensor.dim(axis);
            }
            System.arraycopy(source, from * width, result, element * width, width);
        }
        return result;
    }
}
