// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.algebra;

import io.onnxprune.device.CudaDevice;
import io.onnxprune.device.CudaDevice.Rows;
import io.onnxprune.device.Device;
import java.lang.ref.Reference;

/**
 * Where matrices live and are worked on: the host, with OpenBLAS, or a GPU, with cuBLAS. The operands of one operation
 * of {@link Blas} live in the same place. The GPU is untried.
 */
public final class Place {
    /** The host. */
    public static final Place HOST = new Place(null, Integer.MAX_VALUE);

    /** Fewest rows of matrices that are worth the copies to a device. */
    static final int MIN_ROWS = 512;

    private static volatile Place selected = HOST;

    /** Null on the host. */
    private final CudaDevice device;

    /** Null on the host. */
    private final DeviceBlas blas;

    private final int minRows;

    private Place(CudaDevice device, int minRows) {
        this.device = device;
        this.minRows = minRows;
        blas = device == null ? null : new DeviceBlas(device.blas());
    }

    /**
     * Selects the device for large matrices of the whole process.
     *
     * @param minRows fewest rows of such matrices
     * @throws IllegalArgumentException when the device is neither the host nor an NVIDIA GPU
     */
    static void use(Device device, int minRows) {
        if (device.isHost()) {
            selected = HOST;
        } else if (device instanceof CudaDevice cuda) {
            selected = new Place(cuda, minRows);
        } else {
            throw new IllegalArgumentException("no linear algebra on " + device.name());
        }
    }

    /** Selects the host for all matrices. */
    static void useHost() {
        selected = HOST;
    }

    /**
     * The place for work on {@code n x n} matrices: the selected device when there are enough rows to be worth the
     * copies and the device has memory for them, else the host.
     *
     * @param elements number of elements of all matrices of the work
     */
    public static Place forWork(int n, long elements) {
        Place place = selected;
        // An eighth more, for the workspace of cuBLAS and for gaps between allocations.
        return n < place.minRows || place.isHost() || place.device.freeBytes() < elements * Double.BYTES / 8 * 9
                ? HOST
                : place;
    }

    /** Whether this is the host. */
    public boolean isHost() {
        return device == null;
    }

    /** A matrix of zeros here. */
    public Matrix zeros(int rows, int columns) {
        return Matrix.zeros(this, rows, columns);
    }

    /**
     * An {@code n x n} matrix of zeros here whose row stride is not a multiple of 64 elements, so that elements of one
     * column do not map to the same cache sets.
     */
    public Matrix padded(int n) {
        return Matrix.padded(this, n);
    }

    /** A view of a matrix that lives here, or a copy here of one that does not. Closing a view does nothing. */
    public Matrix borrow(Matrix matrix) {
        if (matrix.place() == this) {
            return matrix.block(0, 0, matrix.rows(), matrix.columns());
        }
        return copy(matrix);
    }

    /** The matrix itself if it lives here, or a copy here of one that does not, which is closed. */
    public Matrix move(Matrix matrix) {
        if (matrix.place() == this) {
            return matrix;
        }
        try (matrix) {
            return copy(matrix);
        }
    }

    private Matrix copy(Matrix matrix) {
        Matrix result = Matrix.uninitialized(this, matrix.rows(), matrix.columns());
        result.assign(matrix);
        return result;
    }

    Memory allocate(long elements) {
        return isHost() ? new Memory.Host(elements) : new Memory.OnDevice(this, device, elements);
    }

    /** The operations of a device. */
    DeviceBlas blas() {
        return blas;
    }

    /**
     * Copies all elements between two places of which at most one is the host.
     *
     * @throws IllegalArgumentException when they are on two devices
     */
    static void copy(Matrix from, Matrix to) {
        long width = (long) to.columns() * Double.BYTES;
        Place source = from.place();
        Place target = to.place();
        try {
            if (source.isHost()) {
                target.device.write(rows(to), rows(from), width, to.rows());
            } else if (target.isHost()) {
                source.device.read(rows(from), rows(to), width, to.rows());
            } else if (source == target) {
                target.device.copy(rows(from), rows(to), width, to.rows());
            } else {
                throw new IllegalArgumentException("matrices on two devices");
            }
        } finally {
            // Memory of the host is freed when its matrix is no longer reachable.
            Reference.reachabilityFence(from);
            Reference.reachabilityFence(to);
        }
    }

    /** What a user calls it. */
    @Override
    public String toString() {
        return isHost() ? "the CPU" : device.name();
    }

    private static Rows rows(Matrix matrix) {
        return new Rows(matrix.address(), (long) matrix.stride() * Double.BYTES);
    }
}
