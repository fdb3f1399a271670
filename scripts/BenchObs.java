import com.sun.management.OperatingSystemMXBean;
import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.diag.Log;
import io.onnxprune.obs.Damping;
import io.onnxprune.obs.GreedyRemoval;
import io.onnxprune.obs.LayerProblem;
import io.onnxprune.obs.RemovalOrder;
import java.io.BufferedOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.channels.FileChannel;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Random;

/**
 * Times the removal of half of a layer's inputs, for scripts/bench_obs.sh.
 *
 * <pre>
 *   java -cp onnx-prune.jar BenchObs.java make DIR N OUT          writes a second moment and weights, float64 row by row
 *   java -cp onnx-prune.jar BenchObs.java run DIR N OUT UNIT RULE THREADS
 * </pre>
 *
 * The latter prints seconds of the inverse with its products, seconds of the removals, CPU seconds of all threads for both,
 * GFLOP/s of either, the GFLOP/s of a large product, and the cost.
 */
public final class BenchObs {
    private static final double DAMPING = 0.01;

    public static void main(String[] arguments) throws IOException {
        Path folder = Path.of(arguments[1]);
        int n = Integer.parseInt(arguments[2]);
        int out = Integer.parseInt(arguments[3]);
        if (arguments[0].equals("make")) {
            Blas.setThreads(0);
            make(folder, n, out);
            return;
        }
        Blas.setThreads(Integer.parseInt(arguments[6]));
        run(folder, n, out, Integer.parseInt(arguments[4]), GreedyRemoval.Rule.valueOf(arguments[5]));
    }

    /** Channels of very different size that share 256 directions, of which a few are strong. */
    private static void make(Path folder, int n, int out) throws IOException {
        Random random = new Random(1);
        double[] scale = new double[n];
        Arrays.setAll(scale, i -> Math.exp(random.nextGaussian()));
        try (Matrix a = Matrix.zeros(n, n);
                Matrix w = gaussian(n, out, new Random(3));
                Matrix directions = gaussian(256, n, new Random(2))) {
            double[] row = new double[n];
            for (int i = 0; i < directions.rows(); i++) {
                directions.getRow(i, row);
                for (int j = 0; j < n; j++) {
                    row[j] *= scale[j] / Math.sqrt(i + 1);
                }
                directions.setRow(i, row);
            }
            Blas.rankUpdate(1, directions, true, 0, a);
            for (int i = 0; i < n; i++) {
                a.add(i, i, 0.3 * scale[i] * scale[i]);
            }
            Blas.mirror(a);
            write(a, folder.resolve("moment-%d.f64".formatted(n)));
            write(w, folder.resolve("weights-%dx%d.f64".formatted(n, out)));
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

    private static void run(Path folder, int n, int out, int size, GreedyRemoval.Rule rule) throws IOException {
        double large = rateOfProducts();
        try (Matrix a = read(folder.resolve("moment-%d.f64".formatted(n)), n, n);
                Matrix w = read(folder.resolve("weights-%dx%d.f64".formatted(n, out)), n, out)) {
            List<int[]> units = new ArrayList<>();
            for (int begin = 0; begin < n; begin += size) {
                int[] unit = new int[size];
                int first = begin;
                Arrays.setAll(unit, i -> first + i);
                units.add(unit);
            }
            List<LayerProblem> layer = List.of(new LayerProblem(a, w, null, units));
            Damping damping = new Damping(DAMPING, 2L * n, "layer", Log.NONE);
            double inverse = seconds(() -> GreedyRemoval.of(layer, 0, rule, damping));
            RemovalOrder[] removal = new RemovalOrder[1];
            double[] cpu = {Double.POSITIVE_INFINITY};
            double all = seconds(() -> {
                long before = cpuTime();
                removal[0] = GreedyRemoval.of(layer, units.size() / 2, rule, damping);
                cpu[0] = Math.min(cpu[0], (cpuTime() - before) / 1e9);
            });
            // Factor and inverse n³, products of the weights n² out, downdates three times the third of what is left and gone.
            double cube = Math.pow(n, 3);
            double left = Math.pow(n - (double) units.size() / 2 * size, 3);
            System.out.printf(
                    Locale.ROOT,
                    "%.2f %.2f %.2f %.1f %.1f %.1f %.9e%n",
                    inverse,
                    all - inverse,
                    cpu[0],
                    (cube + (double) n * n * out) / inverse / 1e9,
                    (cube - left) / (all - inverse) / 1e9,
                    large,
                    Arrays.stream(removal[0].costs()).sum());
        }
    }

    /** GFLOP/s of the best of a few products of 3000 x 3000. */
    private static double rateOfProducts() {
        int n = 3000;
        try (Matrix a = gaussian(n, n, new Random(4));
                Matrix b = Matrix.zeros(n, n)) {
            return 2 * Math.pow(n, 3) / seconds(() -> Blas.multiply(1, a, false, a, false, 0, b)) / 1e9;
        }
    }

    /** Nanoseconds of all threads of this process. */
    private static long cpuTime() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime();
    }

    /** The shortest of as many runs as fit two seconds, at least one. */
    private static double seconds(Runnable work) {
        double best = Double.POSITIVE_INFINITY;
        long begin = System.nanoTime();
        do {
            long start = System.nanoTime();
            work.run();
            best = Math.min(best, (System.nanoTime() - start) / 1e9);
        } while (System.nanoTime() - begin < 2e9);
        return best;
    }

    private static void write(Matrix matrix, Path file) throws IOException {
        // Under another name first, so that what was interrupted is not taken for a whole file.
        Path part = file.resolveSibling(file.getFileName() + ".part");
        double[] row = new double[matrix.columns()];
        ByteBuffer bytes = ByteBuffer.allocate(row.length * Double.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        try (DataOutputStream stream = new DataOutputStream(new BufferedOutputStream(Files.newOutputStream(part)))) {
            for (int i = 0; i < matrix.rows(); i++) {
                matrix.getRow(i, row);
                bytes.clear().asDoubleBuffer().put(row);
                stream.write(bytes.array());
            }
        }
        Files.move(part, file);
    }

    private static Matrix read(Path file, int rows, int columns) throws IOException {
        Matrix result = Matrix.zeros(rows, columns);
        double[] row = new double[columns];
        ByteBuffer bytes = ByteBuffer.allocate(columns * Double.BYTES).order(ByteOrder.LITTLE_ENDIAN);
        try (FileChannel channel = FileChannel.open(file, StandardOpenOption.READ)) {
            for (int i = 0; i < rows; i++) {
                bytes.clear();
                while (bytes.hasRemaining() && channel.read(bytes) >= 0) {
                    continue;
                }
                bytes.flip().asDoubleBuffer().get(row);
                result.setRow(i, row);
            }
        }
        return result;
    }
}
