// SPDX-License-Identifier: Apache-2.0
package io.onnxprune.latency;

import static java.nio.charset.StandardCharsets.UTF_8;

import io.onnxprune.diag.FileFailure;
import io.onnxprune.diag.Log;
import io.onnxprune.diag.WholeFile;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * Times of products on one machine, by shape. Each shape is timed once and kept in a file. Between sizes that are timed, times are
 * interpolated: products are timed at their full sizes and at multiples of a step, {@link #step}.
 */
final class TimeTable {
    /** A size is divided into so many steps, or into up to twice as many. */
    private static final int STEPS = 12;

    /** The head of a file, which names the version of its form. */
    private static final String HEAD = "onnx-prune product times 1: ";

    private final Path file;
    private final String machine;
    private final ProductTimer timer;
    private final Log log;
    private final Map<String, Double> seconds = new TreeMap<>();
    private final Map<String, Double> cheapest = new HashMap<>();
    private int timed;

    /**
     * Reads what was timed before. A file that is broken or from another machine is made anew.
     *
     * @param machine all that times depend on beside the shape: provider, runtime, processor, threads
     */
    TimeTable(Path file, String machine, ProductTimer timer, Log log) {
        this.file = file;
        this.machine = machine.replace('\n', ' ');
        this.timer = timer;
        this.log = log;
        read();
    }

    private void read() {
        if (!Files.exists(file)) {
            return;
        }
        try {
            List<String> lines = Files.readAllLines(file, UTF_8);
            if (lines.isEmpty() || !lines.get(0).equals(HEAD + machine)) {
                throw new IOException("it does not begin as expected");
            }
            for (String line : lines.subList(1, lines.size())) {
                int split = line.indexOf(" = ");
                double time = split < 0 ? -1 : Double.parseDouble(line.substring(split + 3));
                if (!(time > 0 && time < Double.POSITIVE_INFINITY)) {
                    throw new IOException("it has a line without a time");
                }
                seconds.put(line.substring(0, split), time);
            }
        } catch (IOException | NumberFormatException e) {
            seconds.clear();
            log.warn("the times of products in " + file + " cannot be used ("
                    + (e instanceof IOException io ? FileFailure.reason(io) : e.getMessage())
                    + "), so they are measured again");
        }
    }

    /** Writes what was timed since the file was read. A file that cannot be written only costs time later. */
    void save() {
        if (timed == 0) {
            return;
        }
        StringBuilder text = new StringBuilder(HEAD + machine + '\n');
        seconds.forEach(
                (key, time) -> text.append(key).append(" = ").append(time).append('\n'));
        try {
            WholeFile.write(file, text.toString().getBytes(UTF_8));
            timed = 0;
        } catch (IOException e) {
            log.warn("the times of products cannot be kept in " + file + " (" + FileFailure.reason(e)
                    + "), so another run measures them again");
        }
    }

    /** Number of shapes that were timed since the table was last saved. */
    int timed() {
        return timed;
    }

    private double measured(ProductShape shape) {
        Double known = seconds.get(shape.key());
        if (known == null) {
            known = timer.seconds(shape);
            seconds.put(shape.key(), known);
            timed++;
        }
        return known;
    }

    /** The step of sizes that are timed, for a full size: a power of two. */
    static long step(long full) {
        return Long.highestOneBit(Math.max(1, full / STEPS));
    }

    /**
     * The time of a product that has shrunk. A size that is slower than a larger one counts as the larger one, since zeros could
     * fill it up.
     *
     * @param full the shape in the dense model
     * @param sizes from 0 to the {@link ProductShape#sizes} of {@code full}, not necessarily integers
     * @return seconds
     */
    double seconds(ProductShape full, double... sizes) {
        return interpolated(full, sizes, new long[sizes.length], 0);
    }

    /** The time at the timed sizes {@code at} of the first {@code axis} axes, and between those of the others. */
    private double interpolated(ProductShape full, double[] sizes, long[] at, int axis) {
        if (axis == sizes.length) {
            return cheapest(full, at);
        }
        long most = full.sizes()[axis];
        long step = step(most);
        at[axis] = sizes[axis] >= most ? most : step * (long) (sizes[axis] / step);
        double rest = sizes[axis] - at[axis];
        double low = interpolated(full, sizes, at.clone(), axis + 1);
        if (rest <= 0) {
            return low;
        }
        double width = Math.min(step, most - at[axis]);
        at[axis] += (long) width;
        return low + rest / width * (interpolated(full, sizes, at.clone(), axis + 1) - low);
    }

    /** The least time of a timed size and those above it. */
    private double cheapest(ProductShape full, long[] sizes) {
        if (Arrays.stream(sizes).anyMatch(size -> size == 0)) {
            return 0;
        }
        String key = full.key() + " to " + Arrays.toString(sizes);
        Double known = cheapest.get(key);
        if (known == null) {
            known = measured(full.with(sizes));
            for (int axis = 0; axis < sizes.length; axis++) {
                long most = full.sizes()[axis];
                if (sizes[axis] < most) {
                    long[] above = sizes.clone();
                    above[axis] = Math.min(most, sizes[axis] + step(most));
                    known = Math.min(known, cheapest(full, above));
                }
            }
            cheapest.put(key, known);
        }
        return known;
    }
}
