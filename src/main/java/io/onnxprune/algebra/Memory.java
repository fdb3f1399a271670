// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import io.onnxprune.device.CudaDevice;
import org.bytedeco.javacpp.DoublePointer;
import org.bytedeco.javacpp.Pointer;
import org.bytedeco.javacpp.indexer.DoubleIndexer;

/** The memory that a matrix and its views share; it is released when the matrix is closed. */
abstract class Memory {
    /** Where it is. */
    abstract Place place();

    abstract double get(long index);

    abstract void put(long index, double value);

    /** Copies elements from {@code index} on into the first ones of {@code target}. */
    abstract void get(long index, double[] target, int count);

    /** Replaces elements from {@code index} on by the first ones of {@code values}. */
    abstract void put(long index, double[] values, int count);

    /** Sets the first elements to zero. */
    abstract void clear(long elements);

    /** The address of an element: of the host or of the device. */
    abstract long address(long index);

    abstract void free();

    private static IllegalStateException closed() {
        return new IllegalStateException("the matrix is closed");
    }

    /** Memory of the host, for OpenBLAS. */
    static final class Host extends Memory {
        private DoublePointer pointer;
        private DoubleIndexer indexer;

        Host(long elements) {
            NativeBlas.load();
            // At least one element, so that an empty matrix has a valid address.
            pointer = new DoublePointer(Math.max(1, elements));
            indexer = DoubleIndexer.create(pointer);
        }

        private DoubleIndexer elements() {
            if (indexer == null) {
                throw closed();
            }
            return indexer;
        }

        DoublePointer at(long offset) {
            elements();
            return offset == 0 ? pointer : pointer.getPointer(offset);
        }

        @Override
        Place place() {
            return Place.HOST;
        }

        @Override
        double get(long index) {
            return elements().get(index);
        }

        @Override
        void put(long index, double value) {
            elements().put(index, value);
        }

        @Override
        void get(long index, double[] target, int count) {
            at(index).get(target, 0, count);
        }

        @Override
        void put(long index, double[] values, int count) {
            at(index).put(values, 0, count);
        }

        @Override
        void clear(long elements) {
            Pointer.memset(pointer, 0, elements * Double.BYTES);
        }

        @Override
        long address(long index) {
            return at(index).address();
        }

        @Override
        void free() {
            if (indexer != null) {
                indexer = null;
                pointer.deallocate();
            }
        }
    }

    /** Memory of a GPU, for cuBLAS. */
    static final class OnDevice extends Memory {
        private final Place place;
        private final CudaDevice device;
        private final long address;
        private boolean free;

        OnDevice(Place place, CudaDevice device, long elements) {
            this.place = place;
            this.device = device;
            address = device.allocate(Math.max(1, elements) * Double.BYTES);
        }

        @Override
        Place place() {
            return place;
        }

        @Override
        double get(long index) {
            double[] value = new double[1];
            device.read(address(index), value, 1);
            return value[0];
        }

        @Override
        void put(long index, double value) {
            device.write(address(index), new double[] {value}, 1);
        }

        @Override
        void get(long index, double[] target, int count) {
            if (count > 0) {
                device.read(address(index), target, count);
            }
        }

        @Override
        void put(long index, double[] values, int count) {
            if (count > 0) {
                device.write(address(index), values, count);
            }
        }

        @Override
        void clear(long elements) {
            device.clear(address(0), elements * Double.BYTES);
        }

        @Override
        long address(long index) {
            if (free) {
                throw closed();
            }
            return address + index * Double.BYTES;
        }

        @Override
        void free() {
            if (!free) {
                free = true;
                device.free(address);
            }
        }
    }
}
