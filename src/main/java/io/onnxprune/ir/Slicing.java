// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.ir;

import java.nio.ByteBuffer;

/**
 * Selects indices on several axes of a tensor at once. The result is lazy: its bytes are gathered from blocks of the
 * source when they are read.
 */
public final class Slicing {
    private static final int BLOCK_BYTES = 4 << 20;

    private Slicing() {}

    /**
     * The slice of {@code tensor} at {@code kept}.
     *
     * @param kept for each axis the kept indices, ascending, or null for all of them
     * @return the slice; {@code tensor} itself when all indices are kept
     */
    public static Tensor slice(Tensor tensor, int[][] kept) {
        long[] shape = tensor.shape();
        boolean unchanged = true;
        for (int axis = 0; axis < shape.length; axis++) {
            if (kept[axis] != null && kept[axis].length != shape[axis]) {
                shape[axis] = kept[axis].length;
                unchanged = false;
            }
        }
        if (unchanged) {
            return tensor;
        }
        int bits = tensor.dtype().bits();
        if (bits % 8 == 0) {
            return Tensor.of(tensor.dtype(), shape, new SlicedBytes(tensor, kept, shape), tensor.rest());
        }
        Tensor bytes =
                Tensor.of(DType.UINT8, tensor.shape(), PackedBytes.unpacked(tensor.bytes(), bits, tensor.elements()));
        Bytes sliced = PackedBytes.packed(new SlicedBytes(bytes, kept, shape), bits);
        return Tensor.of(tensor.dtype(), shape, sliced, tensor.rest());
    }

    /** Maximal runs of consecutive indices, as (start, length) pairs. */
    private static int[] runs(int[] kept, long extent) {
        if (kept == null) {
            return new int[] {0, Math.toIntExact(extent)};
        }
        int[] runs = new int[2 * kept.length];
        int count = 0;
        for (int index : kept) {
            if (count > 0 && runs[count - 2] + runs[count - 1] == index) {
                runs[count - 1]++;
            } else {
                runs[count++] = index;
                runs[count++] = 1;
            }
        }
        return java.util.Arrays.copyOf(runs, count);
    }

    /**
     * The bytes of a slice. A slab is all data at one index of the first axis; a vector is one slab. Slabs are read
     * from the source in large blocks, and the kept bytes are copied.
     */
    private static final class SlicedBytes implements Bytes {
        private final Bytes source;
        private final int[] slabs;
        private final long sourceSlab;
        private final long targetSlab;
        /**
         * Runs of kept indices of the inner axes, outermost first, and the size in bytes of one index of each axis in
         * the source.
         */
        private final int[][] runs;

        private final int[] strides;
        private final long size;

        SlicedBytes(Tensor tensor, int[][] kept, long[] target) {
            this.source = tensor.bytes();
            int width = tensor.dtype().bits() / 8;
            boolean vector = tensor.rank() == 1;
            int inner = vector ? 1 : tensor.rank() - 1;
            int first = vector ? 0 : 1;
            this.runs = new int[inner][];
            this.strides = new int[inner];
            long stride = width;
            long slab = width;
            for (int axis = inner - 1; axis >= 0; axis--) {
                runs[axis] = runs(kept[first + axis], tensor.dim(first + axis));
                strides[axis] = Math.toIntExact(stride);
                stride *= tensor.dim(first + axis);
                slab *= target[first + axis];
            }
            this.sourceSlab = stride;
            this.targetSlab = slab;
            this.slabs = vector ? new int[] {0} : indices(kept[0], tensor.dim(0));
            this.size = slab * slabs.length;
        }

        private static int[] indices(int[] kept, long extent) {
            return kept != null
                    ? kept
                    : java.util.stream.IntStream.range(0, Math.toIntExact(extent))
                            .toArray();
        }

        @Override
        public long size() {
            return size;
        }

        @Override
        public void read(long offset, ByteBuffer target) {
            byte[] block = new byte[0];
            byte[] slab = new byte[Math.toIntExact(targetSlab)];
            long position = offset;
            int loadedFrom = -1;
            int loaded = 0;
            while (target.hasRemaining()) {
                int index = Math.toIntExact(position / targetSlab);
                if (loadedFrom < 0 || index >= loadedFrom + loaded) {
                    loadedFrom = index;
                    loaded = slabsToLoad(index, target.remaining());
                    int span = slabs[index + loaded - 1] - slabs[index] + 1;
                    block = new byte[Math.toIntExact(span * sourceSlab)];
                    source.read(slabs[index] * sourceSlab, ByteBuffer.wrap(block));
                }
                int from = Math.toIntExact((slabs[index] - slabs[loadedFrom]) * sourceSlab);
                gather(0, block, from, slab, 0);
                int inside = Math.toIntExact(position - index * targetSlab);
                int count = Math.min(target.remaining(), slab.length - inside);
                target.put(slab, inside, count);
                position += count;
            }
        }

        /** Number of requested slabs from {@code index} on that fit into one block. */
        private int slabsToLoad(int index, int requestedBytes) {
            int count = 1;
            while (index + count < slabs.length
                    && (count - 1) * targetSlab < requestedBytes
                    && (slabs[index + count] - slabs[index] + 1) * sourceSlab <= BLOCK_BYTES) {
                count++;
            }
            return count;
        }

        private int gather(int axis, byte[] from, int fromPosition, byte[] to, int toPosition) {
            int position = toPosition;
            int[] axisRuns = runs[axis];
            int stride = strides[axis];
            for (int i = 0; i < axisRuns.length; i += 2) {
                int start = fromPosition + axisRuns[i] * stride;
                if (axis == runs.length - 1) {
                    int bytes = axisRuns[i + 1] * stride;
                    System.arraycopy(from, start, to, position, bytes);
                    position += bytes;
                } else {
                    for (int j = 0; j < axisRuns[i + 1]; j++) {
                        position = gather(axis + 1, from, start + j * stride, to, position);
                    }
                }
            }
            return position;
        }
    }
}
