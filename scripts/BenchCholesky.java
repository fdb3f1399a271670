import com.sun.jna.Function;
import com.sun.jna.Memory;
import com.sun.jna.NativeLibrary;
import io.onnxprune.algebra.Blas;
import io.onnxprune.algebra.Cholesky;
import io.onnxprune.algebra.Matrix;
import io.onnxprune.algebra.Place;
import java.io.IOException;
import java.lang.management.ManagementFactory;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;
import java.util.SplittableRandom;
import java.util.stream.Stream;

/**
 * Times our Cholesky factor and inverse beside LAPACKE_dpotrf and LAPACKE_dpotri of the OpenBLAS that is loaded, in turns.
 *
 * <pre>
 *   java -cp onnx-prune.jar BenchCholesky.java N THREADS REPEATS
 * </pre>
 *
 * Prints seconds, minimum and median, and how far the results are apart. Rows of either matrix are as far apart as in {@code
 * Place.padded}. What is the upper triangle row by row is the lower one column by column, so LAPACK works in place; its wrapper's search
 * for NaN is left out. With one thread the seconds are the processor's, which other programs disturb less.
 */
public final class BenchCholesky {
    private static final int COLUMN_MAJOR = 102;
    private static final byte LOWER = 'L';

    private static boolean single;

    public static void main(String[] arguments) throws IOException {
        int n = Integer.parseInt(arguments[0]);
        int repeats = Integer.parseInt(arguments[2]);
        int stride = n % 64 == 0 ? n + 8 : n;
        Blas.setThreads(Integer.parseInt(arguments[1]));
        single = arguments[1].equals("1");
        double[][] times = new double[4][repeats];
        double apart = 0;
        try (Matrix ours = Place.HOST.padded(n);
                Memory theirs = new Memory((long) n * stride * Double.BYTES)) {
            NativeLibrary library = NativeLibrary.getInstance(openBlas());
            Function factor = library.getFunction("LAPACKE_dpotrf_work");
            Function invert = library.getFunction("LAPACKE_dpotri_work");
            Object[] operands = {COLUMN_MAJOR, LOWER, n, theirs, stride};
            for (int turn = 0; turn < 2 * repeats; turn++) {
                if (turn % 2 == 0) {
                    fill(n, ours::setRow);
                    times[0][turn / 2] = seconds(() -> check(Cholesky.factor(ours)));
                    times[2][turn / 2] = seconds(() -> Cholesky.invert(ours));
                } else {
                    fill(n, (i, row) -> theirs.write((long) i * stride * Double.BYTES, row, 0, n));
                    times[1][turn / 2] = seconds(() -> check(factor.invokeInt(operands) == 0));
                    times[3][turn / 2] = seconds(() -> check(invert.invokeInt(operands) == 0));
                }
            }
            apart = apart(n, ours, theirs, stride);
        }
        for (int i = 0; i < 4; i++) {
            Arrays.sort(times[i]);
        }
        for (int i = 0; i < 2; i++) {
            System.out.printf(
                    Locale.ROOT,
                    "%5d threads %s %-7s ours %.5f %.5f  lapacke %.5f %.5f  ours/lapacke %.3f %.3f%n",
                    n,
                    arguments[1],
                    i == 0 ? "factor" : "invert",
                    times[2 * i][0],
                    times[2 * i][repeats / 2],
                    times[2 * i + 1][0],
                    times[2 * i + 1][repeats / 2],
                    times[2 * i][0] / times[2 * i + 1][0],
                    times[2 * i][repeats / 2] / times[2 * i + 1][repeats / 2]);
        }
        System.out.printf(Locale.ROOT, "apart %.1e%n", apart);
    }

    private interface Rows {
        void set(int index, double[] row);
    }

    /** Numbers that are the same each time, of a matrix that is positive definite. */
    private static void fill(int n, Rows rows) {
        SplittableRandom random = new SplittableRandom(1);
        double[] row = new double[n];
        for (int i = 0; i < n; i++) {
            for (int j = 0; j < n; j++) {
                row[j] = random.nextDouble() - 0.5;
            }
            row[i] += n;
            rows.set(i, row);
        }
    }

    /** The largest difference of elements, by the largest element. */
    private static double apart(int n, Matrix matrix, Memory memory, int stride) {
        double largest = 0;
        double difference = 0;
        double[] first = new double[n];
        double[] second = new double[n];
        for (int i = 0; i < n; i++) {
            matrix.getRow(i, first);
            memory.read((long) i * stride * Double.BYTES, second, 0, n);
            for (int j = i; j < n; j++) {
                largest = Math.max(largest, Math.abs(first[j]));
                difference = Math.max(difference, Math.abs(first[j] - second[j]));
            }
        }
        return difference / largest;
    }

    /** The file that our side has loaded. */
    private static String openBlas() throws IOException {
        try (Stream<String> lines = Files.lines(Path.of("/proc/self/maps"))) {
            return lines.filter(line -> line.contains("/libopenblas"))
                    .map(line -> line.substring(line.indexOf('/')))
                    .findFirst()
                    .orElseThrow();
        }
    }

    private static void check(boolean done) {
        if (!done) {
            throw new IllegalStateException("not positive definite");
        }
    }

    private static double seconds(Runnable work) {
        long start = now();
        work.run();
        return (now() - start) / 1e9;
    }

    private static long now() {
        return single ? ManagementFactory.getThreadMXBean().getCurrentThreadCpuTime() : System.nanoTime();
    }
}
