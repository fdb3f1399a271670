import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.Place;
import io.onnxprune.device.CudaDevice;
import io.onnxprune.diag.Log;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.GreedyRemoval;
import io.onnxprune.obs.LayerProblem;
import io.onnxprune.obs.RemovalOrder;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Random;
import java.util.function.Consumer;

/**
 * Compares the linear algebra on a GPU with that on the CPU: seconds of either and how far the results are apart.
 *
 * <pre>
 *   java -cp onnx-prune.jar BenchDevice.java N OUT [ORDINAL]
 * </pre>
 *
 * N are the inputs of a layer, OUT its outputs. Each line is done twice on the GPU, and the second time counts. The times of
 * single operations include no copies; the removal of half of the inputs includes all of them.
 */
public final class BenchDevice {
    private static Place gpu;

    public static void main(String[] arguments) {
        int n = Integer.parseInt(arguments[0]);
        int out = Integer.parseInt(arguments[1]);
        CudaDevice device = CudaDevice.open(arguments.length > 2 ? Integer.parseInt(arguments[2]) : 0);
        Blas.setThreads(0);
        System.out.printf(
                Locale.ROOT, "%s, %.1f of %.1f GB free%n", device.name(), device.freeBytes() / 1e9, device.totalBytes() / 1e9);
        try (Matrix x = gaussian(n + 64, n, new Random(1));
                Matrix w = gaussian(n, out, new Random(2));
                Matrix moment = Matrix.zeros(n, n)) {
            Blas.useDevice(device);
            gpu = Place.forWork(Math.max(n, 512), 0);
            try (Matrix there = gpu.borrow(x);
                    Matrix wThere = gpu.borrow(w)) {
                compare("rank update", moment, a -> Blas.rankUpdate(1, a.place() == gpu ? there : x, true, 0, a));
                Blas.rankUpdate(1, x, true, 0, moment);
                Blas.mirror(moment);
                compare("product w wT", moment, a -> {
                    Matrix left = a.place() == gpu ? wThere : w;
                    Blas.multiply(1, left, false, left, true, 0, a);
                });
            }
            compare("factor", moment, a -> check(Cholesky.factor(a)));
            compare("factor and inverse", moment, a -> {
                check(Cholesky.factor(a));
                Cholesky.invert(a);
                Blas.mirror(a);
            });
            compare("200 exchanges", moment, a -> {
                for (int i = 0; i < 200; i++) {
                    Blas.exchange(a, i % n, n - 1);
                }
            });
            remove(device, moment, w);
        }
    }

    /** Runs work that changes a matrix on copies of it, and prints the largest difference of upper triangles. */
    private static void compare(String name, Matrix input, Consumer<Matrix> work) {
        try (Matrix host = input.copy();
                Matrix warm = gpu.borrow(input);
                Matrix there = gpu.borrow(input)) {
            double cpu = seconds(host, work);
            seconds(warm, work);
            double device = seconds(there, work);
            try (Matrix back = Place.HOST.borrow(there)) {
                System.out.printf(
                        Locale.ROOT, "%-20s CPU %9.4f s   GPU %9.4f s   apart %.1e%n", name, cpu, device, apart(host, back));
            }
        }
    }

    private static double seconds(Matrix matrix, Consumer<Matrix> work) {
        finish(matrix);
        long start = System.nanoTime();
        work.accept(matrix);
        finish(matrix);
        return (System.nanoTime() - start) * 1e-9;
    }

    /** Waits for the GPU: a copy comes after all calls before it. */
    private static void finish(Matrix matrix) {
        matrix.get(matrix.rows() - 1, matrix.columns() - 1);
    }

    private static double apart(Matrix one, Matrix other) {
        double difference = 0;
        double size = 0;
        double[] left = new double[one.columns()];
        double[] right = new double[one.columns()];
        for (int i = 0; i < one.rows(); i++) {
            one.getRow(i, left);
            other.getRow(i, right);
            for (int j = i; j < left.length; j++) {
                difference = Math.max(difference, Math.abs(left[j] - right[j]));
                size = Math.max(size, Math.abs(left[j]));
            }
        }
        return difference / size;
    }

    private static void remove(CudaDevice device, Matrix moment, Matrix w) {
        int n = moment.rows();
        List<int[]> units = new ArrayList<>();
        for (int i = 0; i < n; i++) {
            units.add(new int[] {i});
        }
        LayerProblem layer = new LayerProblem(moment, w, null, units);
        Damping damping = new Damping(0.01, n, "layer", Log.NONE);
        RemovalOrder[] orders = new RemovalOrder[2];
        for (int i = 0; i < 2; i++) {
            if (i == 0) {
                Blas.useHost();
            } else {
                Blas.useDevice(device);
            }
            long start = System.nanoTime();
            orders[i] = GreedyRemoval.of(List.of(layer), n / 2, GreedyRemoval.Rule.EXACT, damping);
            System.out.printf(
                    Locale.ROOT,
                    "remove %d of %d       %s %9.4f s   cost %.15g%n",
                    n / 2,
                    n,
                    i == 0 ? "CPU" : "GPU",
                    (System.nanoTime() - start) * 1e-9,
                    Arrays.stream(orders[i].costs()).sum());
        }
        System.out.println("same order: " + Arrays.equals(orders[0].order(), orders[1].order()));
    }

    private static void check(boolean factored) {
        if (!factored) {
            throw new IllegalStateException("not positive definite");
        }
    }

    private static Matrix gaussian(int rows, int columns, Random random) {
        Matrix result = Matrix.zeros(rows, columns);
        double[] row = new double[columns];
        for (int i = 0; i < rows; i++) {
            Arrays.setAll(row, j -> random.nextGaussian());
            result.setRow(i, row);
        }
        return result;
    }
}
